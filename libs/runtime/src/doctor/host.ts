import { readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import koffi from 'koffi';
import { run } from '../exec.ts';
import { degraded, missing, ok, type Finding } from './findings.ts';
import { errorText } from './trial.ts';

const textOf = (path: string): string => readFileSync(path, 'utf8').trim();

/** Without these capabilities in effect nothing of a container can be made. */
const needed = { CAP_SYS_ADMIN: 21, CAP_NET_ADMIN: 12, CAP_SETUID: 7, CAP_MKNOD: 27 } as const;

export function examinePrivileges(): Finding {
  const effective = BigInt(
    `0x${/^CapEff:\s+(\w+)/m.exec(textOf('/proc/self/status'))?.[1] ?? '0'}`,
  );
  const lacks = Object.entries(needed)
    .filter(([, bit]) => ((effective >> BigInt(bit)) & 1n) === 0n)
    .map(([name]) => name);
  if (lacks.length === 0) return ok('privileges', 'has what making containers takes');
  return missing('privileges', {
    found: `lacks ${lacks.join(', ')}`,
    fallback: 'no container starts',
    meaning: 'No namespace, mount or network can be made.',
    todo: 'Run as root, in no container that takes capabilities away.',
  });
}

/** Fixed by the versions named; the runtime's own measures against each are in libs/runtime/README.md. */
const known = {
  crun: [
    { fixedIn: [1, 20], name: 'CVE-2025-24965', measure: 'annotations from outside are dropped' },
  ],
  skopeo: [
    { fixedIn: [1, 15, 1], name: 'CVE-2024-3727', measure: 'images are pulled by verified digest' },
  ],
  conmon: [],
} as const;

const isOlder = (version: string, than: readonly number[]): boolean => {
  const parts = version.split('.').map(Number);
  for (const [index, wanted] of than.entries())
    if ((parts[index] ?? 0) !== wanted) return (parts[index] ?? 0) < wanted;
  return false;
};

export async function examineProgram(program: keyof typeof known): Promise<Finding> {
  try {
    const { stdout } = await run(program, ['--version'], { deadlineMs: 10_000 });
    const version = /version:? v?(\d+(?:\.\d+)*)/.exec(stdout)?.[1] ?? 'unknown';
    const open = known[program].filter(({ fixedIn }) => isOlder(version, fixedIn));
    const notes = open.map(({ name, measure }) => `${name} (${measure})`).join(', ');
    return ok(program, `runs, ${version}${notes && `; knows ${notes}`}`);
  } catch (error) {
    return missing(program, {
      found: errorText(error),
      fallback: 'the agent does not start',
      meaning: 'No container can be made.',
      todo: `apt-get install ${program}`,
    });
  }
}

/** What the kernel has to give, against what so many instances take. */
export function examineResources(dir: string, instances: number): Finding[] {
  return [
    ok('kernel', release()),
    atLeast('inotify-watches', '/proc/sys/fs/inotify/max_user_watches', instances * 2, {
      fallback: 'logs are polled, which costs CPU',
      sysctl: 'fs.inotify.max_user_watches',
    }),
    atLeast('inotify-instances', '/proc/sys/fs/inotify/max_user_instances', 128, {
      fallback: 'the agent or another service may fail to watch',
      sysctl: 'fs.inotify.max_user_instances',
    }),
    atLeast('processes', '/proc/sys/kernel/pid_max', instances * 20, {
      fallback: 'starts fail when there are no numbers left',
      sysctl: 'kernel.pid_max',
    }),
    atLeast('threads', '/proc/sys/kernel/threads-max', instances * 20, {
      fallback: 'starts fail when there are no more',
      sysctl: 'kernel.threads-max',
    }),
    openFiles(instances),
    clock(),
    diskSpace(dir),
  ];
}

function atLeast(
  check: string,
  path: string,
  wanted: number,
  { fallback, sysctl }: { fallback: string; sysctl: string },
): Finding {
  const most = Number(textOf(path));
  if (most >= wanted) return ok(check, `${most} at most`);
  return degraded(check, {
    found: `${most} at most, ${wanted} for ${instancesOf(wanted)}`,
    fallback,
    meaning: 'Nothing is less isolated; fewer instances fit.',
    todo: `sysctl ${sysctl}=${wanted}`,
  });
}
const instancesOf = (wanted: number): string => `what may run here (${wanted})`;

function openFiles(instances: number): Finding {
  const hard = /^Max open files\s+\d+\s+(\d+|unlimited)/m.exec(textOf('/proc/self/limits'))?.[1];
  const most = hard === 'unlimited' ? Infinity : Number(hard);
  const wanted = 1024 + instances * 4;
  if (most >= wanted) return ok('open-files', `${most} at most`);
  return degraded('open-files', {
    found: `${most} at most, ${wanted} wanted`,
    fallback: 'starts fail when there are no more',
    meaning: 'Nothing is less isolated; fewer instances fit.',
    todo: `ulimit -Hn ${wanted} for the agent (LimitNOFILE= in its unit)`,
  });
}

/** Asks the kernel, whichever program keeps the time. */
function clock(): Finding {
  const adjtimex = koffi.load(null).func('int adjtimex(void *)');
  const TIME_ERROR = 5;
  // struct timex, all zero: a question.
  if (adjtimex(Buffer.alloc(256)) !== TIME_ERROR) return ok('time', 'the clock is synchronised');
  return degraded('time', {
    found: 'the kernel knows of no synchronisation',
    fallback: 'the clock as it is',
    meaning:
      'Certificates and tokens of minutes may be refused; logs of several hosts do not line up.',
    todo: 'Run chrony or systemd-timesyncd, or leave it to the hypervisor if that does it.',
  });
}

function diskSpace(dir: string): Finding {
  const { bavail, blocks, bsize } = statfsSync(dir);
  const free = Math.floor((bavail * bsize) / 2 ** 20);
  const percent = Math.floor((bavail / blocks) * 100);
  const found = `${free} MiB free in ${dir} (${percent} %)`;
  if (free >= 2048 && percent >= 10) return ok('disk-space', found);
  return degraded('disk-space', {
    found,
    fallback: 'starts fail for want of disk, what runs goes on',
    meaning: 'Nothing is less isolated; few instances and images fit.',
    todo: 'Free some, or put the state directory elsewhere.',
  });
}
