import { expect, it } from 'vitest';
import { removeState, testOptions, traces } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import { soak } from './testing/soak.ts';

/**
 * Twenty seconds of it with every test run, and as long as wanted with
 * `SOAK_MINUTES=10 SOAK_SEED=1 vitest run libs/runtime/src/soak.spec.ts`.
 */
const ms = process.env['SOAK_MINUTES'] ? Number(process.env['SOAK_MINUTES']) * 60_000 : 20_000;
const seed = Number(process.env['SOAK_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

it(
  `churn and kill -9 at random leave nothing and lose nothing (SOAK_SEED=${seed})`,
  async () => {
    const registry = await startRegistry();
    const options = testOptions([registry.host]);
    const image = await registry.push('test/base', [baseLayer]);
    const rounds = await soak(options, image, { ms, seed, containers: 8 });
    expect(rounds).toBeGreaterThan(1);
    expect(await traces(options)).toEqual([]);
    removeState(options);
    await registry.close();
  },
  ms + 120_000,
);
