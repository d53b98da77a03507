import { randomUUID } from 'node:crypto';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { AppModule } from './app.module.ts';
import type { Logger } from './logger.ts';
import { METRICS, type Metrics } from './metrics/metrics.ts';
import { nestLogger } from './nest-logger.ts';
import type { Settings } from './settings.ts';

/** Builds the API with everything connected; the caller lets it listen, and closes it. */
export async function createApp(
  settings: Settings,
  logger: Logger,
): Promise<NestFastifyApplication> {
  const adapter = new FastifyAdapter({
    genReqId: () => randomUUID(),
    bodyLimit: 65_536,
    // Without it every client behind a proxy has the proxy's address, and shares its limits.
    trustProxy: settings.trustedProxies.length > 0 ? [...settings.trustedProxies] : false,
    requestTimeout: 30_000,
    // Connections that idle between requests must not hold up the end of the process.
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256 },
  });
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.with(settings, logger),
    adapter,
    { logger: nestLogger(logger), abortOnError: false, cors: false, bodyParser: false },
  );
  writeAccessLog(adapter, logger, app.get<Metrics>(METRICS));
  return app;
}

/** Method, path, status and time. The query string stays out: queries by GET carry variables there. */
function writeAccessLog(adapter: FastifyAdapter, logger: Logger, metrics: Metrics): void {
  adapter.getInstance().addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown';
    const { method } = request;
    metrics.httpRequests.inc({ method, route, status: reply.statusCode });
    const ms = Math.round(reply.elapsedTime);
    // Probes come every second and say nothing when they succeed.
    const level = reply.statusCode >= 500 ? 'warn' : route === '/graphql' ? 'info' : 'debug';
    logger[level]({ request: request.id, method, route, status: reply.statusCode, ms }, 'request');
  });
}
