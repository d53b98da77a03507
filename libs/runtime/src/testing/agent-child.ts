import { readdirSync, readlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { onDirectory, quotaGroups } from '../btrfs.ts';
import { findProgram } from '../exec.ts';
import { createRuntime } from '../host-runtime.ts';
import { RuntimeError } from '../runtime.ts';
import type { RuntimeOptions } from '../runtime.ts';
import { listenToSteps } from '../steps.ts';
import { mount, MS_BIND, umount } from '../syscalls.ts';
import type { Call, Fault } from './agent.ts';

/** A runtime that does what its parent says line by line, and fails where that says (agent.ts is its other end). */
const options = JSON.parse(process.argv[2] ?? '') as RuntimeOptions;
const runtime = createRuntime({
  ...options,
  onProblem: (what, error) => problems.push(`${what}: ${String(error)}`),
});
const problems: string[] = [];

function arm({ step, action }: Fault): void {
  listenToSteps((name) => {
    if (name !== step) return;
    if (action === 'kill') process.kill(process.pid, 'SIGKILL');
    listenToSteps(null);
    throw new Error(`made to fail at ${name}`);
  });
}

const own = {
  /** What only this process sees: writable layers, quota groups, and namespaces that it holds open. */
  seen: () => {
    const layers = `${options.stateDir}/layers`;
    const held = readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return []; // that of the listing itself
      }
    });
    const count = (kind: string): number => held.filter((to) => to.startsWith(`${kind}:`)).length;
    return {
      layers: readdirSync(layers).toSorted(),
      quotaGroups: onDirectory(layers, (fd) => quotaGroups(fd).length),
      open: { mnt: count('mnt'), net: count('net'), user: count('user') },
    };
  },
  /** Puts `file` in the place of a program, for what this process runs from now on. */
  replace: (program: string, file: string) =>
    mount(file, findProgram(program), null, MS_BIND, null),
  restore: (program: string) => umount(findProgram(program)),
  problems: () => problems.splice(0),
  waitExit: (id: string) => runtime.waitExit(id, AbortSignal.timeout(20_000)),
};

async function answer(line: string): Promise<void> {
  const { call, verb, args, fault } = JSON.parse(line) as Call;
  if (fault) arm(fault);
  let said: unknown;
  try {
    const target = (verb in own ? own : runtime) as unknown as Record<
      string,
      (...args: readonly unknown[]) => unknown
    >;
    said = { call, result: (await target[verb]?.(...args)) ?? null };
  } catch (error) {
    const { message, name } = error as Error;
    const reason = error instanceof RuntimeError ? error.reason : null;
    said = { call, error: { message, name, reason } };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => void answer(line));
// The parent ended.
lines.on('close', () => process.exit());
