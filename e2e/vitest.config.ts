import { defineConfig } from 'vitest/config';
import base from '../vitest.config.ts';

/** One platform for all files, one file after another: they kill parts of what the others use. */
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ['e2e/**/*.spec.ts'],
    globalSetup: 'e2e/support/setup.ts',
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 300_000,
  },
});
