import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nodeId } from '@bulkhead/protocol';
import { z } from 'zod';

const nodeFile = z.object({ id: nodeId, name: z.string() });
const sealingKey = z.looseObject({
  kty: z.literal('OKP'),
  crv: z.literal('X25519'),
  x: z.string(),
  d: z.string(),
});

/** Who this agent is, as deploy wrote it into NODE_DIR when the node joined. */
export interface NodeIdentity {
  id: string;
  name: string;
  /** Private half of the key to which the app's config is sealed. */
  sealingKey: z.infer<typeof sealingKey>;
}

export async function readIdentity(nodeDir: string): Promise<NodeIdentity> {
  const node = nodeFile.parse(await readJson(join(nodeDir, 'node.json')));
  const key = sealingKey.parse(await readJson(join(nodeDir, 'sealing.jwk.json')));
  return { ...node, sealingKey: key };
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(
      `Cannot read ${path} (${why}): has this node joined the fleet? \`npm run up\` writes it.`,
      {
        cause: error,
      },
    );
  }
}
