import 'reflect-metadata';
import { createApp } from './create-app.ts';
import { makeLogger, type Logger } from './logger.ts';
import { SettingsError, readSettings } from './settings.ts';

/** How long requests in the work may take once the process is told to end. Milliseconds. */
const shutdownMs = 10_000;

async function main(): Promise<void> {
  const settings = readSettings(process.env);
  const logger = makeLogger(settings.logLevel);
  const app = await createApp(settings, logger);
  endOnSignals(() => app.close(), logger);
  await app.listen(settings.port, settings.host);
  logger.info({ url: await app.getUrl() }, 'the API answers');
}

function endOnSignals(close: () => Promise<void>, logger: Logger): void {
  let ending = false;
  const end = (signal: NodeJS.Signals) => {
    // A second signal means: now.
    if (ending) process.exit(1);
    ending = true;
    logger.info({ signal }, 'ending');
    setTimeout(() => process.exit(1), shutdownMs).unref();
    close().then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ err: error }, 'did not end cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
}

main().catch((error: unknown) => {
  const message = error instanceof Error ? error.message : String(error);
  const text = error instanceof SettingsError ? message : `The API did not start: ${message}`;
  process.stderr.write(`${text}\n`);
  process.exit(1);
});
