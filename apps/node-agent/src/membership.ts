/** What a host was told when it joined, in NODE_DIR; the control plane's own host has none of it. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { joinAnswer, type JoinAnswer } from '@bulkhead/protocol';

export type Membership = Pick<
  JoinAnswer,
  'network' | 'registryHost' | 'gate' | 'local' | 'streams'
>;

export const membershipFile = (nodeDir: string): string => join(nodeDir, 'fleet.json');

const stored = joinAnswer.pick({
  network: true,
  registryHost: true,
  gate: true,
  local: true,
  streams: true,
});

/** Null on a host that did not join. */
export async function readMembership(nodeDir: string): Promise<Membership | null> {
  const text = await readFile(membershipFile(nodeDir), 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  });
  return text === null ? null : stored.parse(JSON.parse(text));
}
