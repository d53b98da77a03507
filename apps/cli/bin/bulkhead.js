#!/usr/bin/env node
// npm links this file when it installs, before there is a bundle; so it is not the bundle itself.
import { existsSync } from 'node:fs';

const bundle = new URL('../dist/bulkhead.js', import.meta.url);
if (existsSync(bundle)) {
  await import(bundle.href);
} else {
  console.error('bulkhead is not built yet: run `npm run build -w @bulkhead/cli`');
  process.exitCode = 1;
}
