import { RuntimeError, type ContainerRuntime } from '@bulkhead/runtime';

/** What is done to one container, and waited for. Pulls have numbers of their own. */
const verbs = [
  ...(['start', 'update', 'stop', 'pause', 'resume', 'remove'] as const),
  ...(['exec', 'copyIn', 'copyOut', 'connect'] as const),
] as const satisfies readonly (keyof ContainerRuntime)[];
export type Verb = (typeof verbs)[number];

/** `refused`: for a reason that the runtime has a word for, mostly the tenant's; `failed`: all else. */
export type VerbOutcome = 'done' | 'refused' | 'failed';

/** The same runtime, each verb told with its end and how long it took. */
export function timedRuntime(
  runtime: ContainerRuntime,
  onEnd: (verb: Verb, outcome: VerbOutcome, seconds: number) => void,
): ContainerRuntime {
  return new Proxy(runtime, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      const verb = verbs.find((each) => each === name);
      if (verb === undefined) return member.bind(target) as unknown;
      return async (...args: unknown[]): Promise<unknown> => {
        const began = performance.now();
        let outcome: VerbOutcome = 'done';
        try {
          return await (member.apply(target, args) as Promise<unknown>);
        } catch (error) {
          outcome = error instanceof RuntimeError ? 'refused' : 'failed';
          throw error;
        } finally {
          onEnd(verb, outcome, (performance.now() - began) / 1000);
        }
      };
    },
  });
}
