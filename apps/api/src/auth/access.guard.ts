import { Inject, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { GqlExecutionContext, type GqlContextType } from '@nestjs/graphql';
import { assertNever, forbidden } from '@bulkhead/protocol';
import type { RequestContext } from '../graphql/request-context.ts';
import { LOGGER, type Logger } from '../logger.ts';
import { requirementOf } from './permissions.ts';

/**
 * Stands before every query, mutation, subscription, computed field and HTTP route. It fails
 * closed: what declares no requirement is refused. Roles within a tenant are looked up where the
 * tenant is known, by the Door; here it is settled that there is a caller at all.
 */
@Injectable()
export class AccessGuard implements CanActivate {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  canActivate(context: ExecutionContext): boolean {
    const requirement = requirementOf(context.getHandler());
    if (!requirement) {
      const operation = `${context.getClass().name}.${context.getHandler().name}`;
      this.logger.error({ operation }, 'an operation without a declared permission was refused');
      throw forbidden('This operation is not open to anybody: it declares no permission');
    }
    if (requirement.kind === 'public') return true;
    // Routes that are not GraphQL have their own ways of proving who calls; none is known here.
    if (context.getType<GqlContextType>() !== 'graphql') throw forbidden('Not open here');

    const request = GqlExecutionContext.create(context).getContext<RequestContext>();
    const caller = request.getCaller();
    switch (requirement.kind) {
      case 'tenant':
      case 'signed-in':
        return true;
      case 'operator':
        if (!caller.operator)
          throw forbidden('Only operators of the platform may do this, signed in with a password');
        return true;
      default:
        return assertNever(requirement);
    }
  }
}
