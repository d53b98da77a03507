import { unauthenticated } from '@bulkhead/protocol';
import { timingSafeEqual } from 'node:crypto';
import type { Db } from '../db/context.ts';
import { hashSecret } from '../tokens/secret.ts';

/** The node that shows this secret to the registry's token endpoint; UNAUTHENTICATED otherwise. */
export async function nodeFromRegistrySecret(
  db: Db,
  nodeId: string,
  secret: string,
): Promise<{ id: string; name: string }> {
  const node = await db.node.findUnique({ where: { id: nodeId } });
  if (!node || !timingSafeEqual(node.registryHash, hashSecret(secret))) {
    throw unauthenticated('unknown node or wrong secret');
  }
  return { id: node.id, name: node.name };
}

/** Whether an instance placed on the node and not gone has an image of this repository. */
export async function mayPull(db: Db, nodeId: string, repository: string): Promise<boolean> {
  const instance = await db.instance.findFirst({
    where: { nodeId, goneAt: null, release: { imageRepository: repository } },
    select: { id: true },
  });
  return instance !== null;
}
