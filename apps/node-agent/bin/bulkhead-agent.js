#!/usr/bin/env node
// npm links this file when it installs, before there is a build; so it is not the build itself.
import { existsSync } from 'node:fs';

const built = new URL('../dist/main.js', import.meta.url);
if (existsSync(built)) {
  await import(built.href);
} else {
  console.error('bulkhead-agent is not built yet: run `npm run build`');
  process.exitCode = 1;
}
