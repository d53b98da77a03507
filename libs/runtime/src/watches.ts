import { readFileSync, writeFileSync } from 'node:fs';
import { cleanEnv, findProgram } from './exec.ts';
import { identify, signal } from './processes.ts';
import { openPipe, readPipe, spawnDetached } from './spawn.ts';
import type { Spawned } from './spawn.ts';
import { closeFd } from './syscalls.ts';

/**
 * The kernel counts inotify instances and watches for each user of each user namespace and, all of
 * them together, for whoever made the namespaces: root, with 128 instances for the machine. One
 * container could take them all, from every other one and from the agent. So the machine gets
 * enough for all, and each container's namespace a share of its own.
 */
const perContainer = { max_inotify_instances: 128, max_inotify_watches: 4096 } as const;

const nsenter = findProgram('nsenter');
const deadlineMs = 10_000;

/** Makes room for `containers` and the host's own; never takes any away. */
export function raiseHostWatches(containers: number): void {
  raise('max_user_instances', (containers + 8) * perContainer.max_inotify_instances);
  raise('max_user_watches', (containers + 8) * perContainer.max_inotify_watches + 524_288);
}

function raise(name: string, wanted: number): void {
  const file = `/proc/sys/fs/inotify/${name}`;
  if (Number(readFileSync(file, 'utf8')) < wanted) writeFileSync(file, String(wanted));
}

/**
 * Limits the user namespace of `pid`. Only a process inside can write these settings, and a process
 * with threads cannot go there: a shell does it, and says so when it has.
 */
export async function limitWatches(pid: number): Promise<void> {
  const writes = Object.entries(perContainer).map(
    ([name, most]) => `echo ${most} > /proc/sys/user/${name}`,
  );
  const pipe = openPipe();
  const said = new Promise<string>((resolve, reject) => {
    let text = '';
    readPipe(pipe.read)
      .setEncoding('utf8')
      .on('data', (part: string) => (text += part))
      .on('close', () => resolve(text))
      .on('error', reject);
  });
  let child: Spawned;
  try {
    const args = [`--user=/proc/${pid}/ns/user`, '/bin/sh', '-c'];
    child = spawnDetached(nsenter, [...args, `${writes.join(' && ')} && echo done >&3`], {
      ...{ cwd: '/', env: cleanEnv(), third: pipe.write },
    });
  } finally {
    closeFd(pipe.write);
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => {
      const hung = identify(child.pid);
      if (hung) signal(hung, 9);
      resolve('late');
    }, deadlineMs);
  });
  const answer = await Promise.race([said, late]).finally(() => clearTimeout(timer));
  if (answer.trim() !== 'done')
    throw new Error(`The inotify limits of a container could not be set (${answer.trim()}).`);
}
