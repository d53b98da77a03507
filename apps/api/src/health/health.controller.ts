import { setTimeout as delay } from 'node:timers/promises';
import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import { forbidden } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Public } from '../auth/permissions.ts';
import { METRICS, type Metrics } from '../metrics/metrics.ts';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';

/** How long a part may take to answer before it counts as down. Milliseconds. */
const patienceMs = 2000;

/** For supervisors, load balancers and Prometheus; the API listens on loopback unless told otherwise. */
@Controller()
export class HealthController {
  constructor(
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(NATS) private readonly nats: NatsLink,
    @Inject(METRICS) private readonly numbers: Metrics,
  ) {}

  @Get('healthz')
  @Public('a supervisor asks whether the process lives')
  healthz() {
    return { status: 'ok' };
  }

  @Get('readyz')
  @Public('a load balancer asks whether requests can be answered')
  async readyz(@Res({ passthrough: true }) reply: FastifyReply) {
    const [database, nats] = await Promise.all([
      inTime(this.tenancy.ping().then(() => true)),
      inTime(this.nats.isUp()),
    ]);
    const ready = database && nats;
    reply.code(ready ? 200 : 503);
    return {
      status: ready ? 'ready' : 'not ready',
      parts: { database: database ? 'up' : 'down', nats: nats ? 'up' : 'down' },
    };
  }

  @Get('metrics')
  @Public(
    'Prometheus on this host reads numbers that name no tenant; others with METRICS_PUBLIC=on',
  )
  metrics(@Req() request: FastifyRequest, @Res({ passthrough: true }) reply: FastifyReply) {
    if (!this.settings.metricsPublic && !comesFromThisHost(request)) {
      throw forbidden('The numbers are for this host only; METRICS_PUBLIC=on shows them to all');
    }
    reply.header('content-type', 'text/plain; version=0.0.4; charset=utf-8');
    return this.numbers.registry.metrics();
  }
}

/** A proxy on this host connects from loopback too, but says for whom. */
function comesFromThisHost({ socket, headers }: FastifyRequest): boolean {
  const forwarded = ['x-forwarded-for', 'forwarded', 'x-real-ip', 'via'].some(
    (name) => headers[name] !== undefined,
  );
  return !forwarded && /^(127\.|::1$|::ffff:127\.)/.test(socket.remoteAddress ?? '');
}

function inTime(answer: Promise<boolean>): Promise<boolean> {
  return Promise.race([answer.catch(() => false), delay(patienceMs, false, { ref: false })]);
}
