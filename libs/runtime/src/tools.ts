import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import { startExec } from './container-exec.ts';
import type { Host } from './host.ts';
import { busyboxInside } from './oci-config.ts';
import { RuntimeError } from './runtime.ts';
import type { CopyIn, CopyOut, Exec } from './runtime.ts';
import type { ContainerRecord } from './state.ts';

/**
 * Files into and out of a container, by a busybox of the platform's that runs inside as the
 * container's root: its user namespace, limits, system calls and mounts are those of the container,
 * so no link, race or archive leads anywhere else, ids are right, and the disk limit holds.
 */

const keptError = 4096;

async function tool(
  host: Host,
  record: ContainerRecord,
  args: readonly string[],
  stdin: boolean,
): Promise<{ exec: Exec; said: () => string }> {
  if (host.busybox === null)
    throw new RuntimeError('exec-refused', 'The node has no busybox to copy files with.');
  const exec = await startExec(host, record, {
    command: [busyboxInside, ...args],
    ...{ stdin, terminal: null, asRoot: true },
  });
  let said = '';
  exec.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-keptError);
  });
  return { exec, said: () => said };
}

/** Whether `path` is a directory inside, links followed. */
export async function isDirectory(
  host: Host,
  record: ContainerRecord,
  path: string,
): Promise<boolean> {
  const { exec } = await tool(host, record, ['test', '-d', path], false);
  exec.stdout.resume();
  return (await exec.end) === 0;
}

export async function copyOut(host: Host, record: ContainerRecord, path: string): Promise<CopyOut> {
  const whole = posix.normalize(path).replace(/(.)\/$/, '$1');
  const [dir, name] = whole === '/' ? ['/', '.'] : [posix.dirname(whole), posix.basename(whole)];
  const { exec, said } = await tool(
    host,
    record,
    ['tar', '-c', '-f', '-', '-C', dir, '--', name],
    false,
  );
  return { archive: exec.stdout, end: judge(exec, said, path), cancel: exec.hangUp };
}

/** Unpacks into the directory `path`. */
export async function copyIn(host: Host, record: ContainerRecord, path: string): Promise<CopyIn> {
  const { exec, said } = await tool(host, record, ['tar', '-x', '-f', '-', '-C', path], true);
  if (!exec.stdin) throw new Error('tar has no input');
  drain(exec.stdout);
  return { archive: exec.stdin, end: judge(exec, said, path), cancel: exec.hangUp };
}

const drain = (stream: Readable): void => void stream.resume();

async function judge(exec: Exec, said: () => string, path: string): Promise<void> {
  const code = await exec.end;
  if (code === 0) return;
  const text = said();
  const lines = text.split('\n').filter((line) => line !== '');
  const last = (lines.at(-1) ?? `ended with ${code}`).replace(/^tar: /, '');
  if (/can't change directory|can't open.*No such file|: No such file or directory/.test(text))
    throw new RuntimeError('file-not-found', `There is no ${path} in the instance.`);
  if (/No space left|quota exceeded/i.test(text))
    throw new RuntimeError('out-of-disk', 'The disk of the instance is full.');
  throw new RuntimeError('copy-failed', `The copy failed: ${last}`);
}
