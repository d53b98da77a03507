import { closeSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import koffi from 'koffi';
import { SyscallError } from './syscalls.ts';

/**
 * Processes by `posix_spawn(3)`. Node's own `spawn` forks, which copies the page tables of a large
 * process and holds the main thread for several milliseconds; this shares them until `exec`. Like
 * `spawn` it happens on the calling thread, so that the child inherits that thread's namespaces.
 */
const libc = koffi.load(null);
const c = {
  pipe2: libc.func('int pipe2(_Out_ int *fds, int flags)'),
  waitpid: libc.func('int waitpid(int pid, _Out_ int *status, int options)'),
  spawn: libc.func(
    'int posix_spawn(_Out_ int *pid, str path, void *actions, void *attributes, const char **argv, const char **envp)',
  ),
  actionsInit: libc.func('int posix_spawn_file_actions_init(void *)'),
  actionsDup: libc.func('int posix_spawn_file_actions_adddup2(void *, int, int)'),
  actionsChdir: libc.func('int posix_spawn_file_actions_addchdir_np(void *, str)'),
  actionsDestroy: libc.func('int posix_spawn_file_actions_destroy(void *)'),
  attributesInit: libc.func('int posix_spawnattr_init(void *)'),
  setFlags: libc.func('int posix_spawnattr_setflags(void *, short)'),
  setSignalMask: libc.func('int posix_spawnattr_setsigmask(void *, void *)'),
  setSignalDefault: libc.func('int posix_spawnattr_setsigdefault(void *, void *)'),
  attributesDestroy: libc.func('int posix_spawnattr_destroy(void *)'),
};

const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;
const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
const SETSID = 0x80;
/** More than glibc's opaque structures take. */
const opaqueSize = 512;
const signalSetSize = 128;

/** No signal is blocked in the child, and all have their default effect. */
const noSignals = Buffer.alloc(signalSetSize);
const allSignals = Buffer.alloc(signalSetSize, 0xff);

function check(call: string, errno: number): void {
  if (errno !== 0) throw new SyscallError(call, errno);
}

export interface SpawnOptions {
  cwd: string;
  env: Readonly<Record<string, string>>;
  /** Descriptor 3 of the child, if any; 0 to 2 are /dev/null. */
  third?: number;
  stdin?: number;
}

export interface Spawned {
  pid: number;
  /** Settles when it has ended and was waited for. */
  ended: Promise<void>;
}

/** Starts the program at the absolute path `path` in a session of its own. Throws SyscallError when it cannot be run. */
export function spawnDetached(
  path: string,
  args: readonly string[],
  options: SpawnOptions,
): Spawned {
  const actions = Buffer.alloc(opaqueSize);
  const attributes = Buffer.alloc(opaqueSize);
  const nothing = openSync('/dev/null', 'r+');
  check('posix_spawn_file_actions_init', c.actionsInit(actions));
  check('posix_spawnattr_init', c.attributesInit(attributes));
  try {
    const descriptors = [options.stdin ?? nothing, nothing, nothing];
    if (options.third !== undefined) descriptors.push(options.third);
    // A descriptor that already stands where it belongs would be overwritten by an earlier one: ours are all above 3.
    descriptors.forEach((fd, index) =>
      check('posix_spawn_file_actions_adddup2', c.actionsDup(actions, fd, index)),
    );
    check('posix_spawn_file_actions_addchdir_np', c.actionsChdir(actions, options.cwd));
    check('posix_spawnattr_setflags', c.setFlags(attributes, SETSIGDEF | SETSIGMASK | SETSID));
    check('posix_spawnattr_setsigmask', c.setSignalMask(attributes, noSignals));
    check('posix_spawnattr_setsigdefault', c.setSignalDefault(attributes, allSignals));
    const environment = Object.entries(options.env).map(([name, value]) => `${name}=${value}`);
    listen();
    const pid = [0];
    check(
      `spawn ${path}`,
      c.spawn(pid, path, actions, attributes, [path, ...args, null], [...environment, null]),
    );
    return { pid: pid[0] ?? -1, ended: untilReaped(pid[0] ?? -1) };
  } finally {
    c.actionsDestroy(actions);
    c.attributesDestroy(attributes);
    closeSync(nothing);
  }
}

/** A pipe: `read` for us, `write` for a child, to be closed here once that is started. */
export function openPipe(): { read: number; write: number } {
  const fds = [0, 0];
  if (c.pipe2(fds, O_CLOEXEC) !== 0) throw new SyscallError('pipe2', koffi.errno());
  return { read: fds[0] ?? -1, write: fds[1] ?? -1 };
}

export const readPipe = (fd: number): Socket => new Socket({ fd, readable: true, writable: false });

/** Children that have not ended, with whom to tell. libuv waits only for those that it started itself. */
const children = new Map<number, () => void>();
let listening = false;
let looking = false;

/** Before the first child: the signal of one that ends at once must not be missed. */
function listen(): void {
  if (!listening) process.on('SIGCHLD', lookSoon);
  listening = true;
}

const untilReaped = (pid: number): Promise<void> =>
  new Promise((resolve) => children.set(pid, resolve));

/** Many ends at once are one look. */
function lookSoon(): void {
  if (looking) return;
  looking = true;
  setImmediate(() => {
    looking = false;
    for (const [pid, ended] of children) {
      if (c.waitpid(pid, [0], WNOHANG) === 0) continue;
      children.delete(pid);
      ended();
    }
  });
}
