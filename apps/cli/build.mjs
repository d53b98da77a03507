// Bundles the command line into one file without dependencies: dist/bulkhead.js.
// `node build.mjs [outfile]`
import { chmod, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { version } = JSON.parse(await readFile(here('package.json'), 'utf8'));
const outfile = process.argv[2] ?? here('dist/bulkhead.js');

await build({
  entryPoints: [here('src/main.ts')],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  conditions: ['@bulkhead/source'],
  define: { BULKHEAD_VERSION: JSON.stringify(version) },
  // ws has optional native speed-ups, which it looks for in a try block.
  external: ['bufferutil', 'utf-8-validate'],
  banner: {
    // The CommonJS packages inside the bundle call `require` for Node's own modules.
    js: "#!/usr/bin/env node\nimport { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
await chmod(outfile, 0o755);
