import { randomBytes } from 'node:crypto';
import { createUser } from '@nats-io/jwt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PlatformTx } from '../db/transactions.ts';
import { createTestDatabase, type TestDatabase } from '../testing.ts';
import type { JoinRequest } from './joining.ts';
import { firstFreeNetwork, mostNetworks } from './networks.ts';

let db: TestDatabase;
let now = new Date('2026-11-26T12:00:00Z');
beforeAll(async () => {
  db = await createTestDatabase({ now: () => now });
});
afterAll(() => db.drop());

const platform = <T>(work: (tx: PlatformTx) => Promise<T>) => db.tenancy.platform(work);
let hosts = 0;
const host = (secret: string, values: Partial<JoinRequest> = {}): JoinRequest => ({
  secret,
  name: `host-${++hosts}`,
  sealingKey: { kty: 'OKP', crv: 'X25519', x: 'x' },
  natsUser: createUser().getPublicKey(),
  registryHash: randomBytes(32).toString('hex'),
  address: '192.0.2.7',
  ...values,
});
const join = (request: JoinRequest) => platform((tx) => tx.joining.join(request));
const token = async (input: Parameters<PlatformTx['joining']['createToken']>[0] = {}) =>
  (await platform((tx) => tx.joining.createToken(input))).secret;
const unknown = { code: 'UNAUTHENTICATED', message: /unknown, used or over/ };

describe('a join token', () => {
  test('gives the node its pool, labels, name and a network of its own', async () => {
    const secret = await token({ name: 'given', pool: 'big', labels: { zone: 'b' } });
    const node = await join(host(secret));
    expect(node.name).toBe('given');
    expect(await platform((tx) => tx.nodes.get('given'))).toMatchObject({
      ...{ id: node.id, pool: 'big', labels: { zone: 'b' }, network: node.network },
      ...{ address: '192.0.2.7', state: 'joining' },
    });
    const other = await join(host(await token()));
    expect(other.network).not.toBe(node.network);
  });

  test('is good for one host of those that come at once, and for that one again', async () => {
    const secret = await token();
    const requests = Array.from({ length: 8 }, () => host(secret));
    const ended = await Promise.allSettled(requests.map(join));
    const [winner, ...others] = ended.filter(({ status }) => status === 'fulfilled');
    expect(others).toEqual([]);
    for (const result of ended)
      if (result.status === 'rejected')
        expect(result.reason).toMatchObject({
          code: unknown.code,
          message: expect.stringMatching(unknown.message) as string,
        });
    const at = ended.findIndex(({ status }) => status === 'fulfilled');
    expect(await join(requests[at]!)).toEqual((winner as PromiseFulfilledResult<unknown>).value);
  });

  test('is worth nothing when it is over, revoked, another or of a node that was removed', async () => {
    const refused = { code: 'UNAUTHENTICATED' };
    const late = await token({ ttlMinutes: 1 });
    now = new Date(now.getTime() + 61_000);
    await expect(join(host(late))).rejects.toMatchObject(refused);
    const revoked = await platform((tx) => tx.joining.createToken({}));
    await platform((tx) => tx.joining.revokeToken(revoked.token.id));
    await expect(join(host(revoked.secret))).rejects.toMatchObject(refused);
    await expect(join(host('bh_nobody'))).rejects.toMatchObject(refused);
    const request = host(await token());
    const { name } = await join(request);
    await platform((tx) => tx.nodes.remove(name, false));
    await expect(join(request)).rejects.toMatchObject(refused);
  });

  test('is not used up by a request that is refused', async () => {
    const secret = await token();
    const { name } = await join(host(await token()));
    await expect(join(host(secret, { name }))).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(join(host(secret, { address: 'fe80::1' }))).rejects.toMatchObject({
      code: 'INVALID',
    });
    await expect(join(host(secret))).resolves.toMatchObject({
      network: expect.any(String) as string,
    });
  });

  test('is kept as a hash, and cannot be revoked once a host has joined by it', async () => {
    const made = await platform((tx) => tx.joining.createToken({}));
    const rows = await platform((tx) => tx.prisma.joinToken.findMany());
    expect(JSON.stringify(rows)).not.toContain(made.secret);
    await join(host(made.secret));
    await expect(platform((tx) => tx.joining.revokeToken(made.token.id))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
  });
});

test('networks are as many as said, none twice, and the first free one is found', () => {
  const taken = new Set<string>();
  for (let network = firstFreeNetwork(taken); network; network = firstFreeNetwork(taken))
    taken.add(network);
  expect(taken.size).toBe(mostNetworks);
  taken.delete('10.210.32.0/19');
  expect(firstFreeNetwork(taken)).toBe('10.210.32.0/19');
  expect(firstFreeNetwork(['10.202.0.0/16', '10.203.0.0/24'])).toBe('10.203.32.0/19');
});
