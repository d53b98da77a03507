export interface Tally {
  passed: number;
  failed: number;
}

interface VitestReport {
  testResults: { status: string; assertionResults: { status: string }[] }[];
}

/**
 * Counts vitest's JSON report. A file that failed without a failed test (it could not be loaded, or
 * its set-up broke) counts as one failure, and so does a run that ended without a report, or with an
 * exit code that the report does not explain.
 */
export function tallyOf(report: string | null, exitCode: number | null): Tally {
  const tally = { passed: 0, failed: 0 };
  for (const file of parse(report)?.testResults ?? []) {
    const count = (status: string) =>
      file.assertionResults.filter((test) => test.status === status).length;
    tally.passed += count('passed');
    tally.failed += count('failed');
    if (file.status === 'failed' && count('failed') === 0) tally.failed += 1;
  }
  if (tally.failed === 0 && exitCode !== 0) tally.failed += 1;
  return tally;
}

function parse(report: string | null): VitestReport | null {
  try {
    return report === null ? null : (JSON.parse(report) as VitestReport);
  } catch {
    return null;
  }
}
