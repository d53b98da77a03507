import { chmodSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/**
 * System calls that Node does not offer, called on the calling thread through libc. Synchronous on
 * purpose: namespaces belong to a thread, and only a synchronous block is sure to stay on its own.
 * Numbers from 424 on are the same on every architecture.
 */
const libc = koffi.load(null);

const nr = {
  pidfdSendSignal: 424,
  openTree: 428,
  moveMount: 429,
  pidfdOpen: 434,
  openat2: 437,
  mountSetattr: 442,
} as const;

export const CLONE_NEWNS = 0x00020000;
export const CLONE_NEWNET = 0x40000000;
export const MS_NOSUID = 0x2n;
export const MS_NODEV = 0x4n;
export const MS_NOATIME = 0x400n;
export const MS_RDONLY = 0x1n;
export const MS_REMOUNT = 0x20n;
export const MS_BIND = 0x1000n;
export const MS_REC = 0x4000n;
export const MS_SLAVE = 0x80000n;
export const MNT_DETACH = 2;

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_IDMAP = 0x00100000n;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_NO_SYMLINKS = 0x04n;
const RESOLVE_BENEATH = 0x08n;
const RESOLVE_IN_ROOT = 0x10n;

koffi.struct('iovec', { base: 'void *', len: 'size_t' });
koffi.struct('msghdr', {
  name: 'void *',
  namelen: 'uint',
  iov: 'iovec *',
  iovlen: 'size_t',
  control: 'void *',
  controllen: 'size_t',
  flags: 'int',
});

const c = {
  unshare: libc.func('int unshare(int)'),
  setns: libc.func('int setns(int, int)'),
  mount: libc.func('int mount(str, str, str, ulong, str)'),
  umount2: libc.func('int umount2(str, int)'),
  mknod: libc.func('int mknod(str, uint, ulong)'),
  ioctl: libc.func('int ioctl(int, ulong, ...)'),
  nameToIndex: libc.func('uint if_nametoindex(str)'),
  socket: libc.func('int socket(int, int, int)'),
  send: libc.func('long send(int, void *, ulong, int)'),
  recv: libc.func('long recv(int, _Out_ uint8_t *, ulong, int)'),
  bind: libc.func('int bind(int, void *, uint)'),
  listen: libc.func('int listen(int, int)'),
  accept: libc.func('int accept4(int, void *, void *, int)'),
  connect: libc.func('int connect(int, void *, uint)'),
  recvmsg: libc.func('long recvmsg(int, _Inout_ msghdr *, int)'),
  inotifyInit: libc.func('int inotify_init1(int)'),
  inotifyAddWatch: libc.func('int inotify_add_watch(int, str, uint)'),
  read: libc.func('long read(int, _Out_ uint8_t *, ulong)'),
  getxattr: libc.func('long lgetxattr(str, str, _Out_ uint8_t *, ulong)'),
  openTree: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint']),
  moveMount: libc.func('syscall', 'long', ['long', 'int', 'str', 'int', 'str', 'uint']),
  mountSetattr: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint', 'void *', 'ulong']),
  openat2: libc.func('syscall', 'long', ['long', 'int', 'str', 'void *', 'ulong']),
  pidfdOpen: libc.func('syscall', 'long', ['long', 'int', 'uint']),
  pidfdSendSignal: libc.func('syscall', 'long', ['long', 'int', 'int', 'void *', 'uint']),
};

const EINPROGRESS = 115;

/** A failed system call; `code` is its errno's name, like Node's own errors. */
export class SyscallError extends Error {
  override readonly name = 'SyscallError';
  readonly code: string;
  constructor(call: string, errno: number) {
    // The one that Node has no name for.
    const code = errno === EINPROGRESS ? 'EINPROGRESS' : getSystemErrorName(-errno);
    super(`${call}: ${code}`);
    this.code = code;
  }
}

function check(call: string, result: number): number {
  if (result < 0) throw new SyscallError(call, koffi.errno());
  return result;
}

/** Gives the calling thread a mount namespace (and, as Linux wants it, a working directory) of its own. */
export const unshareMounts = (): void => void check('unshare', c.unshare(CLONE_NEWNS));

export const setns = (fd: number, kind: number): void => void check('setns', c.setns(fd, kind));

export function mount(
  source: string,
  target: string,
  type: string | null,
  flags: bigint,
  data: string | null,
): void {
  check(`mount on ${target}`, c.mount(source, target, type, flags, data));
}

export const umount = (target: string): void =>
  void check(`umount ${target}`, c.umount2(target, MNT_DETACH));

/** `data` is read and written in place; a number is passed as it is. Returns what the call returns. */
export function ioctl(call: string, fd: number, request: number, data: Buffer | number): number {
  const type = typeof data === 'number' ? 'ulong' : 'void *';
  return check(call, c.ioctl(fd, request, type, data) as number);
}

/** Makes the device that swallows everything (character device 1:3). */
export function makeNullDevice(path: string): void {
  const [S_IFCHR, device] = [0o020000, (1 << 8) | 3];
  check(`mknod ${path}`, c.mknod(path, S_IFCHR | 0o666, device));
  chmodSync(path, 0o666);
}

/** Makes a FIFO that only its owner may use. */
export function makeFifo(path: string): void {
  const S_IFIFO = 0o010000;
  check(`mknod ${path}`, c.mknod(path, S_IFIFO | 0o600, 0));
}

/**
 * A copy of the directory `source`, mounted nowhere yet, with its owners shifted by the user namespace
 * behind `usernsFd`. It goes with its descriptor, unless `attach` gives it a place.
 */
export function cloneIdmapped(source: string, usernsFd: number): number {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_SYMLINK_NOFOLLOW;
  const tree = check(`open_tree ${source}`, c.openTree(nr.openTree, AT_FDCWD, source, flags));
  try {
    const attributes = Buffer.alloc(32); // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
    attributes.writeBigUInt64LE(BigInt(usernsFd), 24);
    check(
      `mount_setattr ${source}`,
      c.mountSetattr(nr.mountSetattr, tree, '', AT_EMPTY_PATH, attributes, attributes.length),
    );
    return tree;
  } catch (error) {
    closeFd(tree);
    throw error;
  }
}

/** Mounts what `cloneIdmapped` made. */
export const attach = (tree: number, target: string): void =>
  void check(
    `move_mount ${target}`,
    c.moveMount(nr.moveMount, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH),
  );

/** Opens `path` as if `rootFd` were `/`: no link in it, of any kind, leads out. */
export function openInRoot(rootFd: number, path: string, flags: number): number {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, 16);
  return check(`openat2 ${path}`, c.openat2(nr.openat2, rootFd, path, how, how.length));
}

/** Opens `path` below `dirFd` if no part of it is a link; ELOOP otherwise. */
export function openWithoutLinks(dirFd: number, path: string, flags: number): number {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, 16);
  return check(`openat2 ${path}`, c.openat2(nr.openat2, dirFd, path, how, how.length));
}

/** A handle on a process that no later process with the same number can be mistaken for. */
export const pidfdOpen = (pid: number): number =>
  check('pidfd_open', c.pidfdOpen(nr.pidfdOpen, pid, 0));

export const pidfdSendSignal = (pidfd: number, signal: number): void =>
  void check('pidfd_send_signal', c.pidfdSendSignal(nr.pidfdSendSignal, pidfd, signal, null, 0));

/** Index of a network interface in the calling thread's network namespace. */
export function interfaceIndex(name: string): number {
  const index = c.nameToIndex(name);
  if (index === 0) throw new SyscallError(`if_nametoindex ${name}`, koffi.errno());
  return index;
}

export const openSocket = (domain: number, type: number, protocol: number): number =>
  check('socket', c.socket(domain, type | O_CLOEXEC, protocol));

export const send = (fd: number, data: Buffer): void =>
  void check('send', c.send(fd, data, data.length, 0));

export function receive(fd: number, buffer: Buffer): number {
  return check('recv', c.recv(fd, buffer, buffer.length, 0));
}

const AF_UNIX = 1;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;

/** A listening socket at `path`, which must fit 107 bytes; nothing waits on it. */
export function listenAt(path: string): number {
  const address = Buffer.alloc(110); // struct sockaddr_un
  if (Buffer.byteLength(path) > 107) throw new Error(`${path} is too long for a socket`);
  address.writeUInt16LE(AF_UNIX, 0);
  const size = 2 + address.write(path, 2) + 1;
  const fd = openSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    check(`bind ${path}`, c.bind(fd, address, size));
    check('listen', c.listen(fd, 1));
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** Null while nobody has connected. */
export const acceptNow = (fd: number): number | null =>
  unlessBusy(() => check('accept', c.accept(fd, null, null, SOCK_NONBLOCK | O_CLOEXEC)));

/** A descriptor that the other side of a socket sent along; null while nothing came. Throws when it ended. */
export function receiveDescriptor(fd: number): number | null {
  const [data, control] = [Buffer.alloc(256), Buffer.alloc(64)];
  const message = {
    ...{ name: null, namelen: 0, iov: [{ base: data, len: data.length }], iovlen: 1 },
    ...{ control, controllen: control.length, flags: 0 },
  };
  const MSG_CMSG_CLOEXEC = 0x40000000;
  return unlessBusy(() => {
    check('recvmsg', c.recvmsg(fd, message, MSG_CMSG_CLOEXEC));
    // struct cmsghdr: length, level SOL_SOCKET, type SCM_RIGHTS; then the descriptor.
    if (control.readUInt32LE(8) !== 1 || control.readUInt32LE(12) !== 1)
      throw new Error('no descriptor came');
    return control.readInt32LE(16);
  });
}

/** Begins a TCP connection in the calling thread's network namespace; `isConnected` tells the rest. */
export function beginConnect(address: string, port: number): number {
  const fd = openSocket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    connectStep(fd, address, port);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** Throws what the other side answered, such as ECONNREFUSED. */
export const isConnected = (fd: number, address: string, port: number): boolean =>
  connectStep(fd, address, port);

/** Asked again the kernel says how far it is. */
function connectStep(fd: number, address: string, port: number): boolean {
  const where = Buffer.alloc(16); // struct sockaddr_in
  where.writeUInt16LE(AF_INET, 0);
  where.writeUInt16BE(port, 2);
  where.set(address.split('.').map(Number), 4);
  try {
    check('connect', c.connect(fd, where, where.length));
    return true;
  } catch (error) {
    const code = error instanceof SyscallError ? error.code : '';
    if (code === 'EISCONN') return true;
    if (code === 'EINPROGRESS' || code === 'EALREADY') return false;
    throw error;
  }
}

/** An inotify descriptor that never makes a reader wait. */
export const openWatches = (): number =>
  check('inotify_init1', c.inotifyInit(O_CLOEXEC | O_NONBLOCK));

/** The number that events of this directory bear. */
export const addWatch = (fd: number, dir: string, mask: number): number =>
  check(`inotify_add_watch ${dir}`, c.inotifyAddWatch(fd, dir, mask));

/** How many bytes came; null when there is nothing to read. */
export const readNow = (fd: number, into: Buffer): number | null =>
  unlessBusy(() => check('read', Number(c.read(fd, into, into.length))));

function unlessBusy<T>(call: () => T): T | null {
  try {
    return call();
  } catch (error) {
    if (error instanceof SyscallError && error.code === 'EAGAIN') return null;
    throw error;
  }
}

/** An extended attribute of what is at `path`, links not followed; null when it has none. */
export function attributeOf(path: string, name: string): string | null {
  const value = Buffer.alloc(256);
  const size = Number(c.getxattr(path, name, value, value.length));
  return size < 0 ? null : value.toString('latin1', 0, size);
}

const closeLibc = libc.func('int close(int)');

/** Closes a descriptor that did not come from `fs`. */
export const closeFd = (fd: number): void => void closeLibc(fd);
