import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { HostTarget } from '../table.ts';
import { backendName } from '../table.ts';
import type { ActualServer, ActualWorker } from './actual.ts';
import { serverAddress, serverKey } from './config.ts';
import { planStrays, planWorker, type Step } from './plan.ts';

const mapFile = '/map';
const capacity = 4;

/** HAProxy as far as our commands go. */
class Model implements ActualWorker {
  readonly map: Map<string, string>;
  readonly servers: Map<string, ActualServer[]>;
  constructor(map: Map<string, string>, servers: Map<string, ActualServer[]>) {
    this.map = map;
    this.servers = servers;
  }

  run({ command }: Step): void {
    const words = command.split(' ');
    const [verb, noun, name = ''] = words;
    const [backend = '', server = ''] = name.split('/');
    const list = this.servers.get(backend) ?? [];
    const found = list.find((each) => each.name === server);
    const replace = (change: Partial<ActualServer>) => {
      if (!found) throw new Error(`no such server: ${command}`);
      this.servers.set(
        backend,
        list.map((each) => (each === found ? { ...each, ...change } : each)),
      );
    };
    if (noun === 'map') {
      const [, , , host = '', value = ''] = words;
      if (verb === 'add' && this.map.has(host)) throw new Error(`twice in the map: ${host}`);
      if (verb !== 'add' && !this.map.has(host)) throw new Error(`not in the map: ${host}`);
      if (verb === 'del') this.map.delete(host);
      else this.map.set(host, value);
    } else if (verb === 'add') {
      if (found) throw new Error(`server exists: ${command}`);
      this.servers.set(backend, [
        ...list,
        { name: server, key: `${server.charAt(0)} ${words[3] ?? ''}`, mode: 'maint', weight: 1 },
      ]);
    } else if (verb === 'set' && words[3] === 'addr') {
      if (found?.mode !== 'maint') throw new Error(`moved while in use: ${command}`);
      const address = serverAddress({ host: words[4] ?? '', port: Number(words[6]) });
      replace({ key: `${server.charAt(0)} ${address}` });
    } else if (verb === 'set' && words[3] === 'weight') {
      replace({ weight: Number(words[4]) });
    } else if (verb === 'set' && words[3] === 'state') {
      replace({ mode: words[4] as ActualServer['mode'] });
    }
  }
}

const address = fc
  .record({ n: fc.nat(5), weight: fc.constantFrom(undefined, 1, 200), http2: fc.boolean() })
  .map(({ n, weight, http2 }) => ({
    ...{ instance: `i${n}`, host: '10.0.0.1', port: 1000 + n },
    ...(weight !== undefined && { weight }),
    ...(http2 && { http2 }),
  }));
const hostName = fc.constantFrom('h0', 'h1', 'h2', 'h3', 'h4', 'h5');
const server = fc.record({
  key: address.map(serverKey),
  mode: fc.constantFrom('ready', 'drain', 'maint') as fc.Arbitrary<ActualServer['mode']>,
  weight: fc.constantFrom(1, 9),
});

const models = fc
  .record({
    map: fc.dictionary(hostName, fc.constantFrom('b0', 'b1', 'b2', 'b3', 'starting', 'stopped')),
    servers: fc.array(fc.uniqueArray(server, { maxLength: 4, selector: (each) => each.key }), {
      maxLength: capacity,
    }),
  })
  .map(
    ({ map, servers }) =>
      new Model(
        new Map(Object.entries(map)),
        new Map(
          servers.map((list, slot) => [
            backendName(slot),
            list.map((each, i) => ({ ...each, name: `${each.key.charAt(0)}${i + 1}` })),
          ]),
        ),
      ),
  );

const targets: fc.Arbitrary<HostTarget[]> = fc
  .record({
    hosts: fc.uniqueArray(hostName, { maxLength: capacity }),
    slots: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
    backends: fc.array(fc.uniqueArray(address, { selector: serverAddress, maxLength: 3 }), {
      minLength: 4,
      maxLength: 4,
    }),
    kinds: fc.array(fc.constantFrom('serving', 'stopped', 'gone'), { minLength: 4, maxLength: 4 }),
  })
  .map(({ hosts, slots, backends, kinds }) =>
    hosts.map((host, i): HostTarget => {
      const slot = slots[i] ?? 0;
      const list = kinds[i] === 'serving' ? (backends[i] ?? []) : [];
      const destination =
        kinds[i] === 'gone' ? null : list.length > 0 ? backendName(slot) : 'stopped';
      return { host, revision: 1, destination, slot, backends: list };
    }),
  );

const planAll = (model: Model, wanted: HostTarget[]) => [
  ...planStrays(model, wanted, mapFile),
  ...planWorker(model, wanted, mapFile),
];

describe('planWorker', () => {
  it('settles: what it planned makes the worker as wanted, and then it plans nothing', () => {
    fc.assert(
      fc.property(models, targets, (model, wanted) => {
        for (const step of planAll(model, wanted)) model.run(step);
        expect(planAll(model, wanted)).toEqual([]);
        for (const { host, destination, slot, backends } of wanted) {
          expect(model.map.get(host) ?? null).toBe(destination);
          const ready = (model.servers.get(backendName(slot ?? 0)) ?? []).filter(
            ({ mode }) => mode === 'ready',
          );
          expect(ready.map((each) => `${each.key} ${each.weight}`).sort()).toEqual(
            backends.map((each) => `${serverKey(each)} ${each.weight ?? 1}`).sort(),
          );
        }
        expect(model.map.size).toBe(
          wanted.filter(({ destination }) => destination !== null).length,
        );
      }),
    );
  });

  it('never lets a host into a backend before the backend is its own', () => {
    fc.assert(
      fc.property(models, targets, (model, wanted) => {
        const before = new Map(model.map);
        for (const step of planAll(model, wanted)) {
          model.run(step);
          for (const { host, destination, backends } of wanted) {
            const now = model.map.get(host);
            // A host that just came into this backend finds its own servers there and no others.
            if (
              now === undefined ||
              now !== destination ||
              now === before.get(host) ||
              backends.length === 0
            )
              continue;
            const ready = (model.servers.get(now) ?? []).filter(({ mode }) => mode === 'ready');
            expect(ready.map((each) => each.key).sort()).toEqual(backends.map(serverKey).sort());
          }
        }
      }),
    );
  });

  it('brings new servers before it drains old ones', () => {
    const model = new Model(
      new Map([['x', 'b0']]),
      new Map([['b0', [{ name: 's1', key: 's 10.0.0.1:1', mode: 'ready', weight: 1 }]]]),
    );
    const target = {
      host: 'x',
      revision: 2,
      destination: 'b0',
      slot: 0,
      backends: [{ instance: 'i', host: '10.0.0.2', port: 2, weight: 9 }],
    };
    expect(
      planWorker(model, [target], mapFile).map(({ command }) => command.replace(/ check .*/, '')),
    ).toEqual([
      'add server b0/s2 10.0.0.2:2',
      'enable health b0/s2',
      'set server b0/s2 weight 9',
      'set server b0/s2 state ready',
      'set server b0/s1 state drain',
    ]);
  });
});
