/**
 * Further hosts on this machine: a network namespace each, on one bridge with the control plane's
 * host, which is the machine itself. They share its kernel, processes and disk, and nothing of the
 * network: what one says to another crosses the bridge.
 */
import { execFile, spawn } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { stopPlatform } from '../../deploy/platform.ts';
import { layout } from '../../deploy/settings.ts';
import { e2eOptions, killService } from './platform.ts';

const run = promisify(execFile);
const bridge = 'brbhe2e';
const { root } = e2eOptions;

/** Address of the control plane's host on the bridge. */
export const controlAddress = '10.99.61.1';

export async function makeBridge(): Promise<void> {
  await removeBridge();
  await run('ip', ['link', 'add', bridge, 'type', 'bridge']);
  await run('ip', ['addr', 'add', `${controlAddress}/24`, 'dev', bridge]);
  await run('ip', ['link', 'set', bridge, 'up']);
}

export async function removeBridge(): Promise<void> {
  await run('ip', ['link', 'del', bridge]).catch(() => undefined);
}

/** Instances below a node's cgroup that have processes. */
export function runningIn(cgroup: string): string[] {
  const procs = globSync([
    `/sys/fs/cgroup/pids/${cgroup}/*/i*/cgroup.procs`,
    `/sys/fs/cgroup/${cgroup}/*/i*/cgroup.procs`,
  ]);
  return procs
    .filter((file) => readFileSync(file, 'utf8').trim() !== '')
    .map((file) => basename(join(file, '..')))
    .sort();
}

export class Host {
  readonly name: string;
  readonly address: string;
  readonly #namespace: string;
  readonly #cable: string;
  readonly #cgroup: string;
  readonly #env: Record<string, string | undefined>;
  readonly stateDir: string;

  /** @param number From 2 on; 1 is the control plane's. */
  constructor(number: number, portBase: number) {
    this.name = `host-${number}`;
    this.address = controlAddress.replace(/\d+$/, String(number));
    this.#namespace = `bhe2e-${number}`;
    this.#cable = `vbhe2e${number}`;
    this.#cgroup = `bhe2eh${number}`;
    this.stateDir = `/tmp/bulkhead-e2e-host-${number}`;
    this.#env = {
      ...process.env,
      BULKHEAD_STATE: this.stateDir,
      BULKHEAD_PORT_BASE: String(portBase),
      AGENT_CGROUP: this.#cgroup,
      AGENT_NFT_TABLE: `bhe2eh${number}`,
      AGENT_VETH_PREFIX: `bh${number}`,
      AGENT_ID_BASE: String(3_221_225_472 + number * 134_217_728),
      AGENT_DISK_POOL_MIB: '4096',
    };
  }

  /** An empty host with a cable to the bridge. */
  async make(): Promise<void> {
    await this.destroy();
    await run('ip', ['netns', 'add', this.#namespace]);
    const cable = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', this.#namespace];
    await run('ip', ['link', 'add', this.#cable, ...cable]);
    await run('ip', ['link', 'set', this.#cable, 'master', bridge, 'up']);
    const inside = (...args: string[]) => run('ip', ['-n', this.#namespace, ...args]);
    await inside('addr', 'add', `${this.address}/24`, 'dev', 'eth0');
    await inside('link', 'set', 'eth0', 'up');
    await inside('link', 'set', 'lo', 'up');
    await inside('route', 'add', 'default', 'via', controlAddress);
  }

  /** `npm run join`, without what it installs; without a token it starts again what has joined. */
  async join(...args: string[]): Promise<void> {
    await this.#node('deploy/join.ts', ...args);
  }

  /** Output of a program on the host; throws when it fails. */
  async run(program: string, ...args: string[]): Promise<string> {
    const { stdout } = await run('nsenter', [...this.#enter, program, ...args]);
    return stdout;
  }

  /** Pulls the cable, or puts it back. */
  async plug(plugged: boolean): Promise<void> {
    await run('ip', ['link', 'set', this.#cable, plugged ? 'up' : 'down']);
  }

  /** Everything on it ends at once, as in a power cut; what is on its disk stays. */
  async powerOff(): Promise<void> {
    await this.plug(false);
    for (let round = 0; round < 20; round++) {
      const pids = this.#processes();
      if (pids.length === 0) return;
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It ended meanwhile.
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`${this.name} does not go off`);
  }

  /** kill -9 of its agent; returns when another one has taken its place. */
  async killAgent(): Promise<void> {
    await killService(layout(this.stateDir), 'agent');
  }

  /** Instances that run on it, whatever anybody says of them. */
  running(): string[] {
    return runningIn(this.#cgroup);
  }

  /** Leaves nothing of it. */
  async destroy(): Promise<void> {
    await this.plug(true).catch(() => undefined);
    if (globSync(`/run/netns/${this.#namespace}`).length > 0)
      await this.#node('deploy/down.ts', '--purge');
    else await stopPlatform({ root, stateDir: this.stateDir, purge: true, write: () => undefined });
    await run('ip', ['netns', 'del', this.#namespace]).catch(() => undefined);
    await run('ip', ['link', 'del', this.#cable]).catch(() => undefined);
  }

  get #enter(): string[] {
    return [`--net=/run/netns/${this.#namespace}`];
  }

  #processes(): number[] {
    const state = `BULKHEAD_STATE=${this.stateDir}`;
    const pids = globSync('/proc/[0-9]*').map((path) => Number(basename(path)));
    return pids.filter((pid) => {
      const read = (file: string) => {
        try {
          return readFileSync(`/proc/${pid}/${file}`, 'utf8');
        } catch {
          return '';
        }
      };
      if (pid === process.pid || pid === process.ppid) return false;
      return (
        read('environ').split('\0').includes(state) ||
        read('cmdline').includes(`${this.stateDir}/`) ||
        read('cgroup').includes(`/${this.#cgroup}/`)
      );
    });
  }

  /** One of deploy's programs, on this host. */
  async #node(program: string, ...args: string[]): Promise<void> {
    const child = spawn(
      'nsenter',
      [
        ...[...this.#enter, join(root, 'node_modules/.bin/node')],
        ...['--conditions=@bulkhead/source', '--disable-warning=ExperimentalWarning'],
        ...[join(root, program), ...args],
      ],
      { env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject).once('close', resolve);
    });
    if (code !== 0)
      throw new Error(`${program} on ${this.name} ended with ${String(code)}:\n${said}`);
  }
}
