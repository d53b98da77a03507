import { mkdirSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ContainerSpec, RuntimeOptions } from './runtime.ts';
import { RuntimeError } from './runtime.ts';
import { account } from './testing/account.ts';
import { Agent } from './testing/agent.ts';
import { Bystander } from './testing/bystander.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

/** The programs that a runtime runs, each replaced by one that fails, in the namespace of that runtime alone. */
const broken = {
  fails: '#!/bin/sh\nexit 1\n',
  'prints rubbish':
    '#!/bin/sh\nhead -c 300000 /dev/urandom; head -c 3000 /dev/urandom >&2; exit 0\n',
  'is no program': '\0\0\0\0',
  hangs: '#!/bin/sh\nwhile :; do sleep 0.1; done\n',
};

let registry: TestRegistry;
let options: RuntimeOptions;
let image: TestImage;
let subject: ContainerSpec;
let bystander: Bystander;
let agent: Agent;
let absent: string[];

const count = async (): Promise<string[]> =>
  account(options, await agent.list(), [agent.pid], bystander.pid);

beforeAll(async () => {
  registry = await startRegistry();
  options = { ...testOptions([registry.host]), createDeadlineMs: 5000, pullDeadlineMs: 5000 };
  image = await registry.push('test/base', [baseLayer]);
  subject = containerSpec(image, ['sleep', '1000'], { tenantId: 'tenant-b' });
  agent = new Agent(options);
  await agent.reconcile();
  await agent.call('ensureImage', image);
  const server = containerSpec(image, ['httpd', '-f', '-p', '8080', '-h', '/etc']);
  bystander = new Bystander(await agent.start(server), 8080, '/group');
  await bystander.answers();
  mkdirSync(`${options.stateDir}/images/broken`);
  for (const [name, text] of Object.entries(broken))
    writeFileSync(fileOf(name), text, { mode: 0o755 });
  absent = await count();
});

afterAll(async () => {
  await bystander.end();
  await agent.call('destroy');
  await agent.kill();
  expect(await traces(options)).toEqual([]);
  removeState(options);
  await registry.close();
});

const fileOf = (name: string): string => `${options.stateDir}/images/broken/${name}`;
const inTurn = (programs: readonly string[]): [string, string][] =>
  programs.flatMap((program) => Object.keys(broken).map((how): [string, string] => [program, how]));

async function replaced<T>(program: string, how: string, work: () => Promise<T>): Promise<T> {
  await agent.call('replace', program, fileOf(how));
  try {
    return await work();
  } finally {
    await agent.call('restore', program);
  }
}

it.each(inTurn(['conmon', 'crun']))('a start when %s %s', async (program, how) => {
  const failed = replaced(program, how, () => agent.start(subject));
  await expect(failed).rejects.toThrow(
    new RuntimeError('start-failed', 'The container could not be started.'),
  );
  await until('nothing of it is left', async () => (await count()).join() === absent.join());
  expect((await agent.start(subject)).state).toBe('running');
  await agent.call('remove', subject.id);
  bystander.expectUnharmed();
});

it.each(inTurn(['conmon', 'crun', 'ip', 'nft']))(
  'a stop and a removal when %s %s',
  async (program, how) => {
    await agent.start(subject);
    await replaced(program, how, async () => {
      await agent.call('stop', subject.id, 0);
      const [found] = (await agent.list()).filter(({ id }) => id === subject.id);
      expect(found?.state).toBe('stopped');
      await agent.call('remove', subject.id);
    });
    await until('nothing of it is left', async () => (await count()).join() === absent.join());
    bystander.expectUnharmed();
  },
);

it.each(inTurn(['skopeo', 'setpriv']))('a pull when %s %s', async (program, how) => {
  const fresh = await registry.push('test/pulled', [baseLayer, { 'etc/how': program + how }]);
  const pull = (): Promise<unknown> => agent.call('ensureImage', fresh);
  const error = await replaced(program, how, pull).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(RuntimeError);
  expect((error as RuntimeError).message).not.toContain(options.stateDir);
  await pull();
  bystander.expectUnharmed();
});
