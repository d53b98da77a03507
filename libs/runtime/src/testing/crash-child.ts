import { createRuntime } from '../host-runtime.ts';
import type { ContainerSpec, RuntimeOptions } from '../runtime.ts';

/**
 * An agent that tests kill: starts the containers of its argument and says so, then (`churn`)
 * starts, stops, restarts and removes more without end.
 */
const { options, specs, churn } = JSON.parse(process.argv[2] ?? '') as {
  options: RuntimeOptions;
  specs: ContainerSpec[];
  churn: ContainerSpec[];
};
const runtime = createRuntime(options);
await runtime.reconcile();
for (const spec of specs) await runtime.start(spec);
console.log('ready');
await Promise.all(
  churn.map(async (spec) => {
    for (;;) {
      await runtime.start(spec);
      await runtime.stop(spec.id, 0);
      await runtime.start(spec);
      await runtime.remove(spec.id);
    }
  }),
);
// The parent ends it.
setInterval(() => undefined, 60_000);
