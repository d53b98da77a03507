import { makeShortId } from '../db/ids.ts';
import type { PlatformTx } from '../db/transactions.ts';
import type { ProcessDefinition } from '@bulkhead/protocol';
import type { InstanceState } from '../generated/enums.ts';

/** Puts an instance of the app's current release there, as the controllers would. */
export async function placeInstance(
  tx: PlatformTx,
  values: { appId: string; process?: string; state?: InstanceState; nodeId?: string },
): Promise<string> {
  const { appId, process = 'web', state = 'ready', nodeId } = values;
  const app = await tx.prisma.app.findUniqueOrThrow({ where: { id: appId } });
  const release = await tx.prisma.release.findUniqueOrThrow({
    where: { id: app.currentReleaseId ?? '' },
  });
  const definition = (release.processes as unknown as ProcessDefinition[]).find(
    ({ name }) => name === process,
  );
  if (!definition) throw new Error(`no process ${process}`);
  const { cpuMillis, memoryMiB, diskMiB } = definition.resources;
  const { id } = await tx.prisma.instance.create({
    data: {
      ...{ id: makeShortId('i'), tenantId: app.tenantId, appId, releaseId: release.id, process },
      ...{ epoch: app.epoch, state, cpuMillis, memoryMiB, diskMiB },
      ...(nodeId !== undefined && { nodeId }),
      ...(state === 'gone' && { goneAt: new Date() }),
    },
  });
  return id;
}

/** Says that an instance was proven gone. */
export async function removeInstance(tx: PlatformTx, id: string): Promise<void> {
  await tx.prisma.instance.update({
    where: { id },
    data: { state: 'gone', desired: 'gone', goneAt: new Date() },
  });
}
