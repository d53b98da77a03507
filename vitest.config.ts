import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests run the TypeScript sources: the workspaces' `@bulkhead/source` export condition leads there.
// Vitest hands these to Node, which applies them to `require` too: with `import` or `module` among
// them CommonJS packages (pg) would be given ES modules.
const conditions = ['@bulkhead/source', 'node'];

// `npm test` and `npm run up` fetch it; so that single tests find it as well.
const natsServer = fileURLToPath(
  new URL('.bulkhead/cache/nats-server-2.10/nats-server', import.meta.url),
);

export default defineConfig({
  resolve: {
    conditions,
    // As Node resolves it, or the tests and Nest have a copy of graphql each, which it refuses.
    alias: [{ find: /^graphql$/, replacement: fileURLToPath(import.meta.resolve('graphql')) }],
  },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    env: existsSync(natsServer) ? { NATS_SERVER_BIN: natsServer } : {},
    include: ['{apps,libs}/*/src/**/*.spec.ts', 'deploy/**/*.spec.ts', 'examples/**/*.spec.ts'],
    exclude: ['**/node_modules/**', '**/dist/**'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    pool: 'forks',
    // Most tests wait for something; vitest's own choice is one on two cores. With four at once,
    // one run in three had a container that did not answer in time.
    maxWorkers: 2,
  },
});
