import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { planAddresses } from '../addresses.ts';
import { disksBehind } from '../block-devices.ts';
import { enterBaseNamespace } from '../host-thread.ts';
import { examineCgroups } from './cgroups.ts';
import { missing, walls, type Finding } from './findings.ts';
import { examinePrivileges, examineProgram, examineResources } from './host.ts';
import {
  examineDiskLimit,
  examineIdmap,
  examineSeccomp,
  examineUserNamespaces,
} from './isolation.ts';
import { examineForwarding, examineNetwork } from './network.ts';
import { errorText } from './trial.ts';

export interface ExamineOptions {
  /** State directory of the agent; need not be there yet. */
  dir: string;
  network: string;
  nftTable: string;
  vethPrefix: string;
  idBase: number;
  /** As `RuntimeOptions.diskPoolMiB`. */
  diskPoolMiB?: number;
  /** Instances that the node takes at most. */
  instances: number;
}

/**
 * Tries on this host all that containers need, each thing by itself and as the runtime does it, and
 * takes it away again. For a process of its own: it changes its mount namespace and loads a filter.
 * Works beside a running agent, whose names it does not use.
 */
export async function examineHost(options: ExamineOptions): Promise<Finding[]> {
  const dir = firstThere(options.dir);
  const addresses = planAddresses(options.network, options.idBase, options.vethPrefix);
  // The last of the ranges: what it is tried with is owned by nobody for milliseconds.
  const idBase = addresses.idBase(addresses.last);
  const privileges = examinePrivileges();
  // Before the main thread leaves the host's namespace, where a hybrid's v2 is seen.
  const mountinfo = readFileSync('/proc/self/mountinfo', 'utf8');
  const name = `bulkhead-doctor-${process.pid}`;
  const findings = [
    privileges,
    ...(await attempt('cgroup-layout', () =>
      examineCgroups(name, mountinfo, disksBehind([dir])[0] ?? null),
    )),
  ];
  const entered = await enterBaseNamespace().then(() => null, errorText);
  const mounts = (check: string, examine: () => Promise<Finding>): Promise<Finding[]> =>
    attempt(check, async () => {
      if (entered !== null) throw new Error(entered);
      return [await examine()];
    });
  findings.push(
    ...(await attempt('user-namespaces', async () => [
      await examineUserNamespaces(idBase, options.instances),
    ])),
    ...(await mounts('idmapped-layers', () => examineIdmap(dir, idBase))),
    ...(await mounts('disk-limit', () => examineDiskLimit(dir, options.diskPoolMiB))),
    ...(await attempt('firewall', () =>
      examineNetwork({
        table: options.nftTable,
        network: options.network,
        vethPrefix: options.vethPrefix,
      }),
    )),
    ...(await attempt('ip-forward', () => examineForwarding(options.instances))),
    ...(await Promise.all((['crun', 'conmon', 'skopeo'] as const).map(examineProgram))),
    ...(await attempt('kernel', () => examineResources(dir, options.instances))),
    // Last: the filter stays on this thread.
    examineSeccomp(),
  );
  for (const wall of Object.keys(walls))
    if (!findings.some(({ check }) => check === wall)) findings.push(untried(wall, 'see above'));
  return findings;
}

/** A check that itself fails proves nothing, so what it is about counts as missing. */
const untried = (check: string, why: string): Finding =>
  missing(check, {
    found: `could not be tried: ${why}`,
    fallback: 'none',
    meaning: 'Nothing is known of it.',
    todo: 'Mend what is said here and run this again.',
  });

async function attempt(
  check: string,
  examine: () => Finding[] | Promise<Finding[]>,
): Promise<Finding[]> {
  try {
    return await examine();
  } catch (error) {
    return [untried(check, errorText(error))];
  }
}

function firstThere(path: string): string {
  return existsSync(path) || path === '/' ? path : firstThere(dirname(path));
}
