import { resourceNames } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';
import { lockRoom } from '../placement/room.ts';
import type { AppSnapshot } from './app-snapshot.ts';
import type { Step } from './plan-rollout.ts';

type Resize = Extract<Step, { do: 'resize' }>;

/**
 * Gives instances the sizes of the current release where their node has the room, and marks those
 * whose node has not: they are replaced. Runs under the app's lock and its instances', so a node
 * that a placement holds right now is passed over, and its instances are planned again: to wait for
 * it, with rows locked that the placement may want, could be to wait for ever.
 */
export async function applyResizes(
  tx: PlatformTx,
  app: AppSnapshot,
  steps: readonly Resize[],
): Promise<boolean> {
  if (steps.length === 0) return false;
  const ids = steps.map(({ instance }) => instance);
  const rows = await tx.prisma.instance.findMany({ where: { id: { in: ids } } });
  const nodes = [...new Set(rows.flatMap(({ nodeId }) => nodeId ?? []))];
  const rooms = await lockRoom(tx, nodes, 'whoever is free');
  const outgrown: string[] = [];
  const keys: string[] = [];
  for (const row of rows) {
    const left = rooms.get(row.nodeId ?? '')?.free;
    const definition = app.release?.processes.find(({ name }) => name === row.process);
    if (!left || !definition || !app.release) continue;
    const { cpuMillis, memoryMiB, diskMiB } = definition.resources;
    const sizes = { cpuMillis, memoryMiB, diskMiB };
    const more = {
      cpuMillis: cpuMillis - row.cpuMillis,
      memoryMiB: memoryMiB - row.memoryMiB,
      diskMiB: diskMiB - row.diskMiB,
      instances: 0,
    };
    // What does not grow always fits, also on a node that is overfull.
    if (resourceNames.some((name) => more[name] > 0 && more[name] > left[name])) {
      outgrown.push(row.id);
      continue;
    }
    for (const name of resourceNames) left[name] -= more[name];
    const from = app.instances.find(({ id }) => id === row.id);
    const deploymentId = steps.find(({ instance }) => instance === row.id)?.deployment;
    await tx.prisma.instance.update({
      where: { id: row.id },
      data: {
        ...sizes,
        releaseId: app.release.id,
        madeVersion: row.madeVersion ?? from?.version ?? null,
        generation: { increment: 1 },
        // How it ended before says nothing of the new sizes.
        lastExit: Prisma.DbNull,
        ...(deploymentId != null && { deploymentId }),
      },
    });
    keys.push(`${row.nodeId}.${row.id}`);
  }
  if (outgrown.length > 0) {
    await tx.prisma.instance.updateMany({
      where: { id: { in: outgrown } },
      data: { outgrown: true },
    });
  }
  await tx.outbox.add('instance', keys);
  return keys.length > 0;
}
