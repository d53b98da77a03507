/**
 * The clock of one service, which can be set while it runs, as by a person or a wrong time server:
 * Debian's libfaketime below the process, told by a file. Steady clocks go on as they do on a host
 * whose clock is set.
 */
import { execFile } from 'node:child_process';
import { globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const library = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';

export class ServiceClock {
  readonly #file: string;

  private constructor(file: string) {
    this.#file = file;
  }

  /** Restarts the service with such a clock, which is right until it is set. The next `up` ends it. */
  static async install(serviceDir: string): Promise<ServiceClock> {
    const file = join(serviceDir, 'clock');
    const script = join(serviceDir, 'run');
    const clock = new ServiceClock(file);
    clock.set(0);
    const env = {
      ...{ LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: file },
      ...{ FAKETIME_DONT_FAKE_MONOTONIC: '1', FAKETIME_CACHE_DURATION: '1' },
    };
    const words = Object.entries(env).map(([name, value]) => `'${name}=${value}'`);
    // Of the program alone: what runs before it does so as another user.
    const program = /'[^']*\/node_modules\/\.bin\/node'/;
    const before = readFileSync(script, 'utf8');
    writeFileSync(script, before.replace(program, `env ${words.join(' ')} $&`));
    await run('sv', ['-w', '20', 'restart', serviceDir]);
    return clock;
  }

  /** What the library leaves in shared memory of processes that were killed. */
  static sweep(): void {
    for (const file of globSync('/dev/shm/*faketime_s*_*')) rmSync(file, { force: true });
  }

  /** Hours by which it is wrong. */
  set(hours: number): void {
    const seconds = Math.round(hours * 3600);
    writeFileSync(this.#file, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  }
}
