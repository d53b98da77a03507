import koffi from 'koffi';
import { SyscallError } from '../syscalls.ts';

const libc = koffi.load(null);
koffi.struct('sock_fprog', { len: 'ushort', filter: 'void *' });
const prctlNumber = libc.func('int prctl(int, ulong, ulong, ulong, ulong)');
const prctlFilter = libc.func('int prctl(int, ulong, sock_fprog *, ulong, ulong)');
const syscall = libc.func('syscall', 'long', ['long', 'int', 'int']);

const PR_SET_SECCOMP = 22;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_MODE_FILTER = 2;
const SECCOMP_RET_ERRNO = 0x0005_0000;
const SECCOMP_RET_ALLOW = 0x7fff_0000;
/** No call has this number. Without the filter the kernel answers ENOSYS. */
const nobodysCall = 9999;
const EXDEV = 18;

/** struct sock_filter */
function instruction(code: number, jumpTrue: number, jumpFalse: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(jumpTrue, 2);
  bytes.writeUInt8(jumpFalse, 3);
  bytes.writeUInt32LE(value, 4);
  return bytes;
}

/**
 * Loads a filter on the calling thread, for good, that refuses a call that does not exist, and makes
 * that call. Throws when the filter cannot be loaded or does not refuse.
 */
export function tryFilter(): void {
  const [load, jumpIfEqual, answer] = [0x20, 0x15, 0x06];
  const program = Buffer.concat([
    instruction(load, 0, 0, 0),
    instruction(jumpIfEqual, 0, 1, nobodysCall),
    instruction(answer, 0, 0, SECCOMP_RET_ERRNO | EXDEV),
    instruction(answer, 0, 0, SECCOMP_RET_ALLOW),
  ]);
  check('prctl no_new_privs', prctlNumber(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  const filter = { len: program.length / 8, filter: program };
  check('prctl seccomp', prctlFilter(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter, 0, 0));
  if (syscall(nobodysCall, 0, 0) !== -1 || koffi.errno() !== EXDEV)
    throw new Error('the filter was loaded and refuses nothing');
}

function check(call: string, result: number): void {
  if (result < 0) throw new SyscallError(call, koffi.errno());
}
