import type { LoggerService } from '@nestjs/common';
import type { Logger } from './logger.ts';

/** Nest's own words, which matter only when it does not start. */
export function nestLogger(logger: Logger): LoggerService {
  const part = (parameters: unknown[]) => ({ part: String(parameters.at(-1) ?? 'nest') });
  return {
    log: (message: unknown, ...rest: unknown[]) => logger.debug(part(rest), String(message)),
    warn: (message: unknown, ...rest: unknown[]) => logger.warn(part(rest), String(message)),
    error: (message: unknown, ...rest: unknown[]) =>
      logger.error(
        { ...part(rest), ...(message instanceof Error && { err: message }) },
        String(message),
      ),
    debug: (message: unknown, ...rest: unknown[]) => logger.trace(part(rest), String(message)),
    verbose: (message: unknown, ...rest: unknown[]) => logger.trace(part(rest), String(message)),
    fatal: (message: unknown, ...rest: unknown[]) => logger.fatal(part(rest), String(message)),
  };
}
