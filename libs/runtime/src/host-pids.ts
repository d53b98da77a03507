import { readFileSync, writeFileSync } from 'node:fs';

const file = '/proc/sys/kernel/pid_max';
/** The most that a 64-bit kernel numbers; what systemd sets too. */
const most = 4_194_304;

/** A kernel numbers 32,768 processes and threads unless told otherwise: a handful of containers could take them all. */
export function raiseHostPids(): void {
  if (Number(readFileSync(file, 'utf8')) < most) writeFileSync(file, String(most));
}
