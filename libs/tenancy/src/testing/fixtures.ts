import { randomBytes } from 'node:crypto';
import { makeSealingKeyPair, type ImageConfig } from '@bulkhead/protocol';
import type { ResolvedImage } from '../releases/releases.ts';
import type { Caller } from '../roles/caller.ts';
import type { Role } from '../generated/enums.ts';
import type { Tenancy } from '../tenancy.ts';

/** A signed-in user; the email is made from the name. Not through `signUp`, whose attempts are limited. */
export async function makeUser(
  tenancy: Tenancy,
  name: string,
  options: { operator?: boolean } = {},
): Promise<Caller> {
  const user = { email: `${name}@example.org`, password: `${name} has a password`, name };
  await (options.operator ? tenancy.ensureOperator(user) : tenancy.ensureUser(user));
  const { email, password } = user;
  return (await tenancy.signIn({ email, password, address: '192.0.2.1' })).caller;
}

/** A tenant with its owner. */
export async function makeTenant(tenancy: Tenancy, slug: string): Promise<Caller> {
  const owner = await makeUser(tenancy, `${slug}-owner`);
  await tenancy.asUser(owner, (tx) => tx.tenants.create({ slug }));
  return owner;
}

/** Another member of a tenant. */
export async function makeMember(
  tenancy: Tenancy,
  owner: Caller,
  tenant: string,
  role: Role,
): Promise<Caller> {
  const member = await makeUser(tenancy, `${tenant}-${role}-${randomBytes(3).toString('hex')}`);
  await tenancy.run(owner, { tenant, permission: 'member.add' }, (tx) =>
    tx.members.add({ email: member.email, role }),
  );
  return member;
}

/** An image that a registry might have answered with. */
export function makeImage(values: Partial<ResolvedImage> = {}): ResolvedImage {
  return {
    reference: 'hello:1',
    repository: '127.0.0.1:5000/demo/hello',
    digest: `sha256:${'a'.repeat(64)}`,
    size: 1_000_000,
    config: makeImageConfig(),
    ...values,
  };
}

export function makeImageConfig(values: Partial<ImageConfig> = {}): ImageConfig {
  return {
    entrypoint: [],
    cmd: ['node', 'server.js'],
    env: [],
    workingDir: '/',
    user: '',
    exposedPorts: [],
    stopSignal: null,
    ...values,
  };
}

/** A registered node, with a key of its own. */
export async function makeNode(tenancy: Tenancy, name: string) {
  const { publicKey, privateKey } = await makeSealingKeyPair();
  const registrySecret = randomBytes(32).toString('base64url');
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const natsUser = `U${[...randomBytes(55)].map((byte) => alphabet[byte % 32]).join('')}`;
  const node = await tenancy.registerNode({
    name,
    sealingKey: publicKey,
    natsUser,
    registrySecret,
  });
  return { node, privateKey, registrySecret };
}
