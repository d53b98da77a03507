import { expect, test } from 'vitest';
import { degraded, missing, missingWalls, ok, optionalWalls, planRefusal } from './findings.ts';

const gone = {
  found: 'not there',
  fallback: 'none',
  meaning: 'All can be taken.',
  todo: 'Mend it.',
};

test('only walls that are missing and not allowed by name keep the agent from starting', () => {
  const findings = [
    ok('firewall', 'loaded'),
    degraded('cgroup-layout', gone),
    missing('crun', gone),
    missing('disk-limit', gone),
    missing('io-limit', gone),
  ];
  expect(missingWalls(findings)).toEqual(['disk-limit', 'io-limit']);
  expect(planRefusal(findings, ['disk-limit', 'io-limit'])).toBeNull();
  expect(planRefusal(findings, ['disk-limit'])).toContain(
    'AGENT_ALLOW_MISSING_WALLS=disk-limit,io-limit',
  );
  expect(planRefusal([ok('firewall', 'loaded')], [])).toBeNull();
});

test('nobody is told to waive what no container starts without', () => {
  const text = planRefusal([missing('seccomp', gone)], []);
  expect(text).toContain('seccomp: not there');
  expect(text).not.toContain('AGENT_ALLOW_MISSING_WALLS');
  expect(optionalWalls).toEqual(['swap-limit', 'io-limit', 'disk-limit']);
});
