import { expect, test } from 'vitest';
import { tallyOf } from './tally.ts';

const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map((each) => ({ status: each })),
});
const report = (...testResults: object[]) => JSON.stringify({ testResults });

test.each([
  ['all well', report(file('passed', 'passed', 'passed')), 0, { passed: 2, failed: 0 }],
  [
    'a skipped test is neither',
    report(file('passed', 'passed', 'skipped')),
    0,
    { passed: 1, failed: 0 },
  ],
  ['a failed test', report(file('failed', 'passed', 'failed')), 1, { passed: 1, failed: 1 }],
  [
    'a file that does not load',
    report(file('failed'), file('passed', 'passed')),
    1,
    { passed: 1, failed: 1 },
  ],
  ['an error outside any test', report(file('passed', 'passed')), 1, { passed: 1, failed: 1 }],
  ['killed before its report', null, null, { passed: 0, failed: 1 }],
  ['half a report', '{"testRes', 1, { passed: 0, failed: 1 }],
])('%s', (_, text, exitCode, expected) => {
  expect(tallyOf(text, exitCode)).toEqual(expected);
});
