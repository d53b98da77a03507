import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inboxPrefix, subjects } from '@bulkhead/protocol';
import {
  createAccount,
  createOperator,
  createUser,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fmtCreds,
  type Account,
} from '@nats-io/jwt';
import { credsAuthenticator } from 'nats';
import { expect, test } from 'vitest';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer, node } from './testing.ts';

const one = 'iaaaaaaaaaaaa';

/** All that a node may do, word for word. */
const nodeMay = {
  publish: [
    `$JS.API.CONSUMER.CREATE.KV_desired.desired-${node}.$KV.desired.${node}.>`,
    `$JS.API.CONSUMER.DELETE.KV_desired.desired-${node}`,
    `$JS.API.CONSUMER.INFO.KV_desired.desired-${node}`,
    `$JS.API.CONSUMER.MSG.NEXT.KV_desired.desired-${node}`,
    `report.${node}.*`,
    `heartbeat.${node}`,
    `logs.*.*.${node}.*`,
  ],
  subscribe: [`${inboxPrefix(node)}.>`, subjects.dial(node)],
};

const unlimited: NonNullable<Account['limits']> = {
  subs: -1,
  data: -1,
  payload: -1,
  imports: 0,
  exports: 0,
  wildcards: false,
  conn: -1,
  leaf: 0,
  disallow_bearer: true,
  mem_storage: -1,
  disk_storage: -1,
  streams: -1,
  consumer: -1,
  mem_max_stream_bytes: 0,
  disk_max_stream_bytes: 0,
  max_bytes_required: false,
  max_ack_pending: -1,
};

/** A server in operator mode, and credentials for it. */
async function operatorMode() {
  const operator = createOperator();
  const system = createAccount();
  const account = createAccount();
  const signer = { signer: operator };
  const systemId = system.getPublicKey();
  const jwts = {
    operator: await encodeOperator('test', operator, { system_account: systemId }),
    system: await encodeAccount('SYS', system, {}, signer),
    platform: await encodeAccount('PLATFORM', account, { limits: unlimited }, signer),
  };
  const nats = await NatsServer.start(`
    operator: ${jwts.operator}
    system_account: ${systemId}
    resolver: MEMORY
    resolver_preload: { ${systemId}: ${jwts.system}, ${account.getPublicKey()}: ${jwts.platform} }
  `);
  const credentials = async (may: { publish: string[]; subscribe: string[] }) => {
    const key = createUser();
    const grant = { pub: { allow: may.publish }, sub: { allow: may.subscribe } };
    return fmtCreds(await encodeUser('user', key, account, grant), key);
  };
  return { nats, credentials };
}

test("a node's own permissions suffice for all that an agent does", async () => {
  const { nats, credentials } = await operatorMode();
  const everything = await credentials({ publish: ['>'], subscribe: ['>'] });
  const plane = await ControlPlane.on(nats, { authenticator: credsAuthenticator(everything) });
  const host = await Host.on(nats);
  await writeFile(join(host.nodeDir, 'nats.creds'), await credentials(nodeMay), { mode: 0o600 });
  const beats: unknown[] = [];
  plane.connection.subscribe('heartbeat.*', { callback: (_, message) => void beats.push(message) });

  await plane.want(await host.spec());
  await host.startAgent();
  await plane.state(one, 'ready');
  host.runtime.write(one, 'hello');
  await eventually('the log line', () => plane.lines(one).includes('hello'));
  await eventually('a heartbeat', () => beats.length > 0);

  await nats.down();
  await nats.up();
  await plane.want(gone({ generation: 2 }));
  await plane.state(one, 'gone');
  await plane.dropKey(one);
  await eventually('forgetting', () => host.agent?.health().instances === 0);
  expect(host.runtime.containers.size).toBe(0);
});

test('credentials that come late are taken without a restart', async () => {
  const { nats, credentials } = await operatorMode();
  const everything = await credentials({ publish: ['>'], subscribe: ['>'] });
  const plane = await ControlPlane.on(nats, { authenticator: credsAuthenticator(everything) });
  const host = await Host.on(nats);
  await plane.want(await host.spec());
  await host.startAgent();
  await writeFile(join(host.nodeDir, 'nats.creds'), await credentials(nodeMay), { mode: 0o600 });
  await plane.state(one, 'ready');
});
