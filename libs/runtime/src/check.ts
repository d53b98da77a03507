import type { Readable } from 'node:stream';
import { enter, refusalOf } from './enter.ts';
import type { Host } from './host.ts';
import type { CheckResult } from './runtime.ts';
import type { ContainerRecord } from './state.ts';

/** A command that looks at a container from inside (enter.ts): its end counts, and the end of what it says. */

/** What is kept of a command's output: its end, bytes. */
const keptOutput = 4096;
/** crun itself may hang; it gets this long beyond the command's own time, ms. */
const crunGraceMs = 5000;

export async function runCheck(
  host: Host,
  record: ContainerRecord,
  command: readonly string[],
  timeoutMs: number,
): Promise<CheckResult> {
  const entry = await enter(host, record, {
    name: 'check',
    process: { args: command },
    stdin: 'ignore',
  });
  if (!entry) return notRun('the container does not run');
  const output = new Tail();
  const streams = [entry.child.stdout, entry.child.stderr].filter((stream) => stream !== null);
  for (const stream of streams) {
    stream.on('data', (part: Buffer) => output.add(part));
    stream.on('error', () => undefined);
  }
  let timedOut = false;
  const endCrun = (): void => void entry.child.kill('SIGKILL');
  const timers = [setTimeout(endCrun, timeoutMs + 2 * crunGraceMs)];
  const late = (): void => {
    timedOut = true;
    entry.kill().catch(() => undefined);
  };
  entry.begun.then(
    () => timers.push(setTimeout(late, timeoutMs), setTimeout(endCrun, timeoutMs + crunGraceMs)),
    () => undefined,
  );
  try {
    const { exitCode, said } = await entry.end;
    // What it left running held its output open, and is gone now.
    await Promise.all(streams.map(closed));
    if (timedOut) return { outcome: 'timed-out', exitCode: null, output: output.text() };
    if (said !== '' || exitCode === null) {
      const refused = refusalOf(said);
      if (refused === null) return notRun('the command could not be run');
      return { outcome: 'refused', exitCode: null, output: refused };
    }
    return { outcome: 'ended', exitCode, output: output.text() };
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

function closed(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) return resolve();
    stream.once('close', () => resolve());
  });
}

const notRun = (why: string): CheckResult => ({ outcome: 'not-run', exitCode: null, output: why });

/** The end of a stream of any length. */
class Tail {
  #kept = Buffer.alloc(0);

  add(part: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, part]).subarray(-keptOutput);
  }

  text(): string {
    return this.#kept.toString('utf8');
  }
}
