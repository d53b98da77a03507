import { closeSync, constants, existsSync, openSync, readdirSync, statSync } from 'node:fs';
import { ioctl, SyscallError } from './syscalls.ts';

/**
 * A file as a block device, by the ioctls of linux/loop.h. The device is attached with autoclear: it
 * lets go of the file by itself when the last mount or descriptor of it is closed, so that a process
 * killed between attaching and mounting leaves none.
 */
const request = {
  configure: 0x4c0a,
  getStatus: 0x4c05,
  setCapacity: 0x4c07,
  getFree: 0x4c82,
} as const;

const LO_FLAGS_AUTOCLEAR = 4;
/** Past the page cache of the file's own file system: what the pool caches is not cached twice. */
const LO_FLAGS_DIRECT_IO = 16;
const sizeOfInfo = 232;

/** A device and an open descriptor, which keeps it attached. */
export interface Loop {
  readonly device: string;
  readonly fd: number;
}

/** The device that is attached to this very file, held open by the caller from now on; null when there is none. */
export function findLoop(file: string): Loop | null {
  const wanted = statSync(file, { bigint: true });
  for (const name of readdirSync('/sys/block')) {
    if (!existsSync(`/sys/block/${name}/loop/backing_file`)) continue;
    const device = `/dev/${name}`;
    const fd = openIfAttached(device);
    if (fd === null) continue;
    const info = Buffer.alloc(sizeOfInfo);
    try {
      ioctl('loop status', fd, request.getStatus, info);
    } catch (error) {
      closeSync(fd);
      // Not attached, or let go of between the look and this.
      if (error instanceof SyscallError && error.code === 'ENXIO') continue;
      throw error;
    }
    if (info.readBigUInt64LE(0) === wanted.dev && info.readBigUInt64LE(8) === wanted.ino)
      return { device, fd };
    closeSync(fd);
  }
  return null;
}

function openIfAttached(device: string): number | null {
  try {
    return openSync(device, constants.O_RDWR);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENXIO' || code === 'ENOENT') return null;
    throw error;
  }
}

/** Attaches a free device to the file; the caller closes `fd` once it is mounted. */
export function attachLoop(file: string): Loop {
  const control = openSync('/dev/loop-control', constants.O_RDWR);
  const backing = openSync(file, constants.O_RDWR);
  try {
    for (let attempt = 0; attempt < 100; attempt++) {
      const device = `/dev/loop${ioctl('loop get free', control, request.getFree, 0)}`;
      const fd = openSync(device, constants.O_RDWR);
      const config = Buffer.alloc(304); // fd, block_size, struct loop_info64, reserved
      config.writeUInt32LE(backing, 0);
      config.writeUInt32LE(4096, 4);
      config.writeUInt32LE(LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO, 8 + 52);
      config.write(file.slice(-63), 8 + 56);
      try {
        ioctl('loop configure', fd, request.configure, config);
        return { device, fd };
      } catch (error) {
        closeSync(fd);
        // Another process took it first.
        if (!(error instanceof SyscallError) || error.code !== 'EBUSY') throw error;
      }
    }
    throw new Error('Other processes took every free loop device.');
  } finally {
    closeSync(backing);
    closeSync(control);
  }
}

/** Lets the device see that its file has grown. */
export const growLoop = ({ fd }: Loop): void =>
  void ioctl('loop set capacity', fd, request.setCapacity, 0);
