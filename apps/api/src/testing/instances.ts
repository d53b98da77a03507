import type { PlatformTx } from '@bulkhead/tenancy';

/** An instance as the controllers would have made and placed it. */
export async function placeInstance(
  tx: PlatformTx,
  where: { deployment: string; node: string; id: string; process?: string },
): Promise<void> {
  const { tenantId, appId, toReleaseId, epoch } = await tx.prisma.deployment.findUniqueOrThrow({
    where: { id: where.deployment },
  });
  await tx.prisma.instance.create({
    data: {
      id: where.id,
      tenantId,
      appId,
      releaseId: toReleaseId ?? '',
      deploymentId: where.deployment,
      nodeId: where.node,
      process: where.process ?? 'web',
      state: 'assigned',
      epoch,
      cpuMillis: 100,
      memoryMiB: 64,
      diskMiB: 64,
    },
  });
}
