import type { Command } from 'commander';
import { usageError } from '../errors.ts';
import { traffic } from '../graphql/operations.ts';
import type { TrafficMinute } from '../graphql/types.ts';
import { parseMoment } from '../output/time.ts';
import { appOptions, examples, placeOf, type Act } from './kit.ts';
import { bytes } from './records.ts';

/** As long as the API keeps it. */
const mostMinutes = 48 * 60;
/** What fits on a screen. */
const mostRows = 60;
const steps = [1, 5, 15, 60];

const requestsOf = (each: TrafficMinute): number =>
  each.status2xx + each.status3xx + each.status4xx + each.status5xx;

/** Minutes put together to one row, so that a screen holds `minutes` of them. */
const stepOf = (minutes: number): number => steps.find((each) => minutes / each <= mostRows) ?? 60;

const shortTime = (at: string): string => {
  const date = new Date(at);
  const two = (part: number) => String(part).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}`;
};

const milliseconds = (value: number | null): string =>
  value === null ? '-' : value < 10 ? `${value.toFixed(1)} ms` : `${String(Math.round(value))} ms`;

export function trafficCommands(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('traffic')
        .description('Requests, failures and answer times of an app, as the edges saw them')
        .option('--since <time>', 'from then on: 10m, 2h, or a date; at most two days', '1h'),
    ).action(
      act(async (session, options: { since: string }) => {
        const at = session.app();
        const { out } = session;
        const now = out.now();
        const since = parseMoment(options.since, '--since', now);
        const minutes = Math.ceil((now.getTime() - Date.parse(since)) / 60_000);
        if (minutes < 1 || minutes > mostMinutes)
          throw usageError('--since: two days are kept', 'Write 10m, 2h, 1d or a date since then.');
        const step = out.json ? 1 : stepOf(minutes);
        const { app } = await session.client().request(traffic, { ...at, minutes, step });
        const whole = (value: number) => (value === 0 ? '-' : String(value));
        const { style } = out;
        if (out.json) {
          out.data(app.traffic);
          return;
        }
        out.list(
          app.traffic,
          [
            { title: 'FROM', value: (row) => shortTime(row.minute) },
            { title: 'REQUESTS', value: (row) => String(requestsOf(row)), align: 'right' },
            {
              title: 'PER SECOND',
              value: (row) => (requestsOf(row) / step / 60).toFixed(1),
              align: 'right',
            },
            { title: '2XX', value: (row) => whole(row.status2xx), align: 'right' },
            { title: '3XX', value: (row) => whole(row.status3xx), align: 'right' },
            { title: '4XX', value: (row) => whole(row.status4xx), align: 'right' },
            {
              title: '5XX',
              value: (row) => whole(row.status5xx),
              align: 'right',
              style: (cell, row) => (row.status5xx > 0 ? style.bad(cell) : cell),
            },
            { title: 'FAILED', value: (row) => whole(row.failed), align: 'right' },
            { title: 'P50', value: (row) => milliseconds(row.p50Ms), align: 'right' },
            { title: 'P95', value: (row) => milliseconds(row.p95Ms), align: 'right' },
            { title: 'P99', value: (row) => milliseconds(row.p99Ms), align: 'right' },
            { title: 'IN', value: (row) => bytes(row.bytesIn), align: 'right' },
            { title: 'OUT', value: (row) => bytes(row.bytesOut), align: 'right' },
          ],
          `No requests for ${at.app} since then. Its address: bulkhead apps open${placeOf(session, at)}`,
        );
      }),
    ),
    ['traffic', 'traffic --app hello --since 1d', 'traffic --app hello --json'],
  );
}
