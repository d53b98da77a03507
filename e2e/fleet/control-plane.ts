/**
 * Parts of the control plane end in the middle of deploys, on several hosts and under load. Each time
 * the deploy goes through, no request fails that did not meet the part itself, nothing that was
 * acknowledged is lost, and in the end everything is as it should be.
 */
import { createHash, randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { ApiClient } from '../support/client.ts';
import { ServiceClock } from '../support/clock.ts';
import { fleetOptions, type Fleet } from '../support/fleet.ts';
import type { ServiceName } from '../support/platform.ts';
import { until } from '../support/until.ts';

/** Changes one after another, until it is stopped; then says which were acknowledged and are not there. */
function writeNotes({ tenant }: Fleet, app: string) {
  const acknowledged: string[] = [];
  let stopped = false;
  const writing = (async () => {
    for (let number = 1; !stopped; number++) {
      const name = `NOTE_${number}`;
      const written = tenant.setConfig(app, { [name]: 'kept' });
      await written.then(
        () => acknowledged.push(name),
        () => undefined,
      );
      await delay(50);
    }
  })();
  return async () => {
    stopped = true;
    await writing;
    const { app: found } = await tenant.api.ask(
      'query ($tenant: String!, $name: String!) { app(tenant: $tenant, name: $name) { config { name } } }',
      { tenant: tenant.slug, name: app },
    );
    const kept = new Set(found.config.map(({ name }: { name: string }) => name));
    return { acknowledged, lost: acknowledged.filter((name) => !kept.has(name)) };
  };
}

/** All but the first edge's HAProxy, through which no request may fail. */
const services: readonly ServiceName[] = [
  ...(['postgres', 'nats', 'registry', 'api', 'api-2', 'balancer', 'gate'] as const),
  ...(['agent', 'edge', 'edge-2', 'haproxy-2'] as const),
];

export function controlPlaneFaults(fleet: Fleet): void {
  describe('in the middle of a deploy', () => {
    let scenario = 0;
    /**
     * Deploys under load and writing while each fault happens, then looks at everything. A fault that
     * lasts answers how to end it, which is done when the deploy has gone through.
     */
    async function during(
      faults: readonly (() => Promise<unknown>)[],
      mayFail: (failure: string, edge: number) => boolean = () => false,
    ): Promise<void> {
      const { tenant } = fleet;
      const notes = `notes-${++scenario}`;
      await tenant.createApp(notes);
      const traffic = fleet.traffic('spread');
      const stopWriting = writeNotes(fleet, notes);
      for (const fault of faults) {
        const id = await until('a deploy is accepted', () => tenant.restart('spread'));
        const end = await fault();
        try {
          await tenant.succeeded(id);
        } finally {
          if (typeof end === 'function') end();
        }
      }
      const { acknowledged, lost } = await stopWriting();
      const loads = await traffic.stop();
      const failures = loads.flatMap((load, edge) =>
        load.failures.filter((failure) => !mayFail(failure, edge)),
      );
      expect(failures).toEqual([]);
      expect(lost).toEqual([]);
      expect(acknowledged.length).toBeGreaterThan(5);
      for (const { requests } of loads) expect(requests).toBeGreaterThan(50);
      await fleet.sound();
      await fleet.destroy(notes);
    }
    const kill = (...services: ServiceName[]) =>
      Promise.all(services.map((service) => fleet.platform.kill(service)));
    /** Another moment of the deploy. */
    const after = async (ms: number, fault: () => Promise<unknown>) => {
      await delay(ms);
      return fault();
    };

    test('each replica of the API is killed in turn, then both at once', () =>
      during([
        () => kill('api'),
        () => after(150, () => kill('api-2')),
        () => after(400, () => kill('api')),
        () => kill('api', 'api-2'),
      ]));

    test('a replica of the API hangs, in the middle of whatever it does', () =>
      during([() => after(100, () => fleet.platform.freeze('api-2'))]));

    /** Of the second edge, whose HAProxy is killed. */
    const ownConnections = (failure: string, edge: number) =>
      edge === 1 && /ECONNREFUSED|ECONNRESET|socket hang up/.test(failure);

    test('an edge is killed: HAProxy takes its own connections with it, a controller none', () =>
      during([() => kill('haproxy-2'), () => kill('edge'), () => kill('edge-2')], ownConnections));

    test('NATS is killed, then loses all it had', () =>
      during([() => kill('nats'), () => fleet.platform.wipeNats()]));

    test('PostgreSQL is killed, with a replica of the API the second time', () =>
      during([() => kill('postgres'), () => after(300, () => kill('postgres', 'api'))]));

    // FLEET_ROUNDS=100 FLEET_SEED=... goes on for longer, or does again what failed.
    const rounds = Number(process.env['FLEET_ROUNDS'] ?? 3);
    const seed = process.env['FLEET_SEED'] ?? String(randomInt(1_000_000));
    test(
      `two parts are killed, whichever and whenever it is (FLEET_SEED=${seed})`,
      () => {
        let drawn = 0;
        const draw = (below: number) =>
          createHash('sha256').update(`${seed}/${++drawn}`).digest().readUInt32BE() % below;
        const parts: (() => Promise<unknown>)[] = [
          ...services.map((service) => () => kill(service)),
          ...fleet.hosts.map((host) => () => host.killAgent()),
        ];
        const round = () => {
          const first = draw(parts.length);
          const other = (first + 1 + draw(parts.length - 1)) % parts.length;
          return Promise.all([first, other].map((part) => after(draw(3_000), parts[part]!)));
        };
        return during(
          Array.from({ length: rounds }, () => round),
          ownConnections,
        );
      },
      rounds * 60_000,
    );
  });

  test('the clocks of a replica of the API and of an agent are moved by more than a session lasts', async () => {
    const { tenant, platform, third } = fleet;
    const clocks = [
      await ServiceClock.install(fleet.serviceDir('api-2')),
      await ServiceClock.install(fleet.serviceDir('agent', third)),
    ];
    const [right = '', wrong = ''] = platform.replicaUrls.map((url) => url.replace('/graphql', ''));
    /** Hours by which the Date of an HTTP answer is wrong. */
    const error = (date: string | null) =>
      Math.round((Date.parse(date ?? '') - Date.now()) / 3_600_000);
    const agent = `http://127.0.0.1:${fleetOptions.portBase + 5}/healthz`;
    const both = async () => [
      error((await fetch(`${wrong}/readyz`)).headers.get('date')),
      error(/^date: (.*)/im.exec(await third.run('curl', '-sI', agent))?.[1] ?? null),
    ];
    const busybox =
      'mkdir /tmp/w && echo here >/tmp/w/index.html && exec httpd -f -p 8080 -h /tmp/w';
    // What no host has yet is pulled by tokens of either replica, and one that is wrong gives some.
    const releases = [
      { hours: 13, image: 'static', more: {} },
      { hours: -13, image: 'probe', more: { command: ['sh', '-c', busybox] } },
    ];
    const [before] = await tenant.serving('spread');
    const traffic = fleet.traffic('spread');
    for (const { hours, image, more } of releases) {
      for (const clock of clocks) clock.set(hours);
      await until('both are wrong', async () => (await both()).every((by) => by === hours));
      const reference = await platform.push(tenant, image, `${image}:1`);
      await tenant.succeeded(
        await fleet.release('spread', { image: reference, path: '/', ...more }),
      );
      // Who signs in at one is signed in at the other.
      for (const [from, to] of [
        [wrong, right],
        [right, wrong],
      ]) {
        const { signIn } = await new ApiClient(`${from}/graphql`).ask(
          'mutation ($input: SignInInput!) { signIn(input: $input) { token } }',
          { input: { email: tenant.email, password: tenant.password } },
        );
        const there = new ApiClient(`${to}/graphql`, signIn.token);
        expect((await there.ask('{ me { email } }')).me.email).toBe(tenant.email);
      }
    }
    for (const clock of clocks) clock.set(0);
    await until('both are right', async () => (await both()).every((by) => by === 0));
    await tenant.succeeded(await tenant.rollback('spread', before?.release));
    await fleet.sound();
    for (const { failures } of await traffic.stop()) expect(failures).toEqual([]);
  });
}
