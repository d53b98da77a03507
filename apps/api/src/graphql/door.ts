import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { GqlExecutionContext } from '@nestjs/graphql';
import type {
  Caller,
  OperatorTx,
  Page,
  Tenancy,
  TenantRef,
  TenantTx,
  UserTx,
} from '@bulkhead/tenancy';
import { requirementOf, type Requirement } from '../auth/permissions.ts';
import type { RequestContext } from './request-context.ts';

/** A view and the tenant that it was seen in, so that its own fields know which door to take. */
export type Owned<T> = T & { readonly tenantId: string };

/**
 * A resolver's way to the data: tenancy's doors, opened for the caller with the permission that the
 * resolver's `@Requires` declares. What is declared and what is checked cannot differ.
 */
export class Door {
  constructor(
    private readonly tenancy: Tenancy,
    readonly caller: Caller,
    private readonly requirement: Requirement | null,
  ) {}

  /** Work in one tenant's transaction. */
  run<T>(ref: TenantRef, work: (tx: TenantTx) => Promise<T>): Promise<T> {
    if (this.requirement?.kind !== 'tenant') throw new Error('declares no permission of a tenant');
    return this.tenancy.run(this.caller, { ...ref, permission: this.requirement.permission }, work);
  }

  /** As `run`, for one object that has fields of its own to resolve. */
  get<T extends object>(ref: TenantRef, work: (tx: TenantTx) => Promise<T>): Promise<Owned<T>> {
    return this.run(ref, async (tx) => ({ ...(await work(tx)), tenantId: tx.tenant.id }));
  }

  /** As `get`, for a page of such objects. */
  list<T extends object>(
    ref: TenantRef,
    work: (tx: TenantTx) => Promise<Page<T>>,
  ): Promise<Page<Owned<T>>> {
    return this.run(ref, async (tx) => {
      const page = await work(tx);
      const edges = page.edges.map(({ cursor, node }) => ({
        cursor,
        node: { ...node, tenantId: tx.tenant.id },
      }));
      return { ...page, edges, nodes: edges.map(({ node }) => node) };
    });
  }

  /** What the caller owns outside any tenant. */
  user<T>(work: (tx: UserTx) => Promise<T>): Promise<T> {
    return this.tenancy.asUser(this.caller, work);
  }

  operator<T>(work: (tx: OperatorTx) => Promise<T>): Promise<T> {
    if (this.requirement?.kind !== 'operator') throw new Error("declares no operator's permission");
    return this.tenancy.asOperator(this.caller, { permission: this.requirement.permission }, work);
  }
}

/** Injects the Door of the operation that is being resolved. */
export const OpenDoor = createParamDecorator((_data: unknown, context: ExecutionContext): Door => {
  const request = GqlExecutionContext.create(context).getContext<RequestContext>();
  return new Door(request.tenancy, request.getCaller(), requirementOf(context.getHandler()));
});
