import type { Route } from '@bulkhead/protocol';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RouteTable, routeProblem } from './table.ts';

const route = (
  host: string,
  revision: number,
  backends = 1,
  state: Route['state'] = 'serving',
): Route => ({
  v: 1,
  host,
  tenant: 't',
  app: 'a',
  state,
  revision,
  backends: Array.from({ length: backends }, (_, i) => ({
    instance: `i${i}`,
    host: '10.0.0.1',
    port: 1000 + i,
  })),
});

describe('RouteTable', () => {
  it('refuses older revisions, also with fewer backends or another state', () => {
    const table = new RouteTable();
    expect(table.accept(route('x', 5))).toBe('new');
    expect(table.accept(route('x', 5, 2))).toBe('same');
    expect(table.accept(route('x', 4, 0, 'stopped'))).toBe('stale');
    expect(table.find('x')).toMatchObject({ revision: 5, backends: [{ port: 1000 }] });
  });

  it('says why a host without backends does not serve', () => {
    const table = new RouteTable();
    table.accept(route('a', 1, 0));
    table.accept(route('b', 1, 0, 'stopped'));
    table.accept(route('c', 1, 2, 'crashed'));
    expect(['a', 'b', 'c', 'd'].map((host) => table.find(host).destination)).toEqual([
      'starting',
      'stopped',
      'crashed',
      null,
    ]);
  });

  it('keeps the slot of a deleted host until it is released, and gives it out last', () => {
    const table = new RouteTable();
    table.accept(route('x', 1));
    const { slot } = table.find('x');
    expect(table.release('x')).toBe(false);
    table.remove('x');
    expect(table.find('x')).toMatchObject({ slot, destination: null, backends: [] });
    expect(table.release('x')).toBe(true);
    table.accept(route('y', 1));
    expect(table.find('y').slot).not.toBe(slot);
  });

  it('never gives one slot to two hosts, nor one beyond its capacity, and is the same from disk', () => {
    const command = fc.record({
      host: fc.nat(120).map((n) => `h${n}`),
      revision: fc.nat(20),
      kind: fc.constantFrom('serve', 'stop', 'remove', 'release'),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 400 }), (commands) => {
        const table = new RouteTable();
        for (const { host, revision, kind } of commands) {
          if (kind === 'serve') table.accept(route(host, revision));
          else if (kind === 'stop') table.accept(route(host, revision, 0, 'stopped'));
          else if (kind === 'remove') table.remove(host);
          else table.release(host);
        }
        const targets = [...table.hosts()].map((host) => table.find(host));
        const slots = targets.flatMap(({ slot }) => (slot === null ? [] : [slot]));
        expect(new Set(slots).size).toBe(slots.length);
        for (const slot of slots) expect(slot).toBeLessThan(table.capacity);
        for (const { backends, slot } of targets)
          if (backends.length > 0) expect(slot).not.toBeNull();
        const again = new RouteTable(table.toStored());
        expect([...again.hosts()].map((host) => again.find(host))).toEqual(targets);
        expect(again.capacity).toBe(table.capacity);
      }),
    );
  });
});

describe('routeProblem', () => {
  it.each([
    ['Upper.case', /lower case/],
    ['a:80', /host name/],
    ['a b', /host name/],
    ['-a', /host name/],
    ['a..b', /host name/],
    ['a\nb', /host name/],
    ['', /host name/],
  ])('refuses the host %j', (host, why) => expect(routeProblem(route(host, 1))).toMatch(why));

  it('accepts host names, IPv4 and IPv6', () => {
    expect(routeProblem(route('my-app.tenant_1.example.org', 1))).toBeNull();
    expect(
      routeProblem({ ...route('a', 1), backends: [{ instance: 'i', host: 'fd00::1', port: 80 }] }),
    ).toBeNull();
  });

  it('refuses addresses that are none, ports out of range and doubles', () => {
    const withBackends = (backends: Route['backends']) =>
      routeProblem({ ...route('a', 1), backends });
    expect(withBackends([{ instance: 'i', host: 'example.org', port: 80 }])).toMatch(/not an IP/);
    expect(withBackends([{ instance: 'i', host: '10.0.0.1', port: 0 }])).toMatch(/out of range/);
    const twice = { instance: 'i', host: '10.0.0.1', port: 80 };
    expect(withBackends([twice, twice])).toMatch(/share/);
  });
});
