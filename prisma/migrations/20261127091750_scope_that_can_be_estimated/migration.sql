-- The same walls, told so that PostgreSQL can plan behind them. It cannot look into a setting and
-- takes an equality for true of one row in two hundred, "<> ''" for true of nearly all of them,
-- as in the platform's scope it is. Without a scope the setting is null or empty, and closed either
-- way, and libs/tenancy (db/scope.ts) is the one place that sets it. What is estimated too high for a
-- tenant costs little: its stores name the tenant again, by an index (ADR 36).

ALTER POLICY "tenant" ON "Tenant" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "id"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Member" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "ApiToken" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "App" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Formation" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "ConfigVar" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Release" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Deployment" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "DeploymentEvent" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Instance" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Route" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "QuotaLimit" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "QuotaEntry" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant" ON "Traffic" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "tenant_reads" ON "AuditEntry" USING (
  current_setting('bulkhead.scope', true) <> ''
  OR "tenantId"::text = current_setting('bulkhead.tenant', true)
);
ALTER POLICY "platform" ON "User" USING (current_setting('bulkhead.scope', true) <> '');
ALTER POLICY "platform" ON "Node" USING (current_setting('bulkhead.scope', true) <> '');
ALTER POLICY "platform" ON "Outbox" USING (current_setting('bulkhead.scope', true) <> '');
ALTER POLICY "platform" ON "Pool" USING (current_setting('bulkhead.scope', true) <> '');
ALTER POLICY "platform" ON "PoolGrant" USING (current_setting('bulkhead.scope', true) <> '');
ALTER POLICY "platform" ON "JoinToken" USING (current_setting('bulkhead.scope', true) <> '');
