-- Row-level security and checks: what Prisma's schema cannot say. Note for whoever writes the next
-- one: @prisma/adapter-pg splits a migration at every semicolon, also inside comments and bodies.

-- The second wall behind the stores of libs/tenancy. A transaction sees what its door bound it to:
-- one tenant (bulkhead.tenant) or everything (bulkhead.scope = platform). With neither set it sees
-- nothing. FORCE because the platform's role owns the tables.

ALTER TABLE "Tenant" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Tenant" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Tenant" USING (
  "id"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Member" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Member" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Member" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "ApiToken" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "ApiToken" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "ApiToken" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "App" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "App" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "App" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Formation" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Formation" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Formation" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "ConfigVar" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "ConfigVar" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "ConfigVar" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Release" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Release" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Release" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Deployment" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Deployment" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Deployment" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "DeploymentEvent" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "DeploymentEvent" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "DeploymentEvent" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Instance" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Instance" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Instance" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "Route" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Route" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Route" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "QuotaLimit" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "QuotaLimit" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "QuotaLimit" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

ALTER TABLE "QuotaEntry" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "QuotaEntry" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "QuotaEntry" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

-- The audit log only grows: there is no policy for UPDATE and DELETE, not even for the platform.
ALTER TABLE "AuditEntry" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "AuditEntry" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant_reads" ON "AuditEntry" FOR SELECT USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);
CREATE POLICY "tenant_writes" ON "AuditEntry" FOR INSERT WITH CHECK (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);

-- A tenant sees the users who are its members, by way of what it may see of "Member".
ALTER TABLE "User" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "User" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "User" USING (current_setting('bulkhead.scope', true) = 'platform');
CREATE POLICY "member" ON "User" FOR SELECT USING (
  EXISTS (SELECT 1 FROM "Member" WHERE "Member"."userId" = "User"."id")
);

-- Hosts are no tenant's business.
ALTER TABLE "Node" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Node" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "Node" USING (current_setting('bulkhead.scope', true) = 'platform');

-- Every door may leave a note for the publisher, only the platform reads them.
ALTER TABLE "Outbox" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Outbox" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "Outbox" USING (current_setting('bulkhead.scope', true) = 'platform');
CREATE POLICY "any_door" ON "Outbox" FOR INSERT WITH CHECK (
  current_setting('bulkhead.tenant', true) <> '' OR current_setting('bulkhead.scope', true) = 'platform'
);

-- At most one move of an app is under way.
CREATE UNIQUE INDEX "Deployment_one_running" ON "Deployment"("appId") WHERE "status" = 'running';

ALTER TABLE "User" ADD CONSTRAINT "User_email_check" CHECK ("email" = lower("email") AND length("email") BETWEEN 3 AND 254);
ALTER TABLE "Tenant" ADD CONSTRAINT "Tenant_slug_check" CHECK ("slug" ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$');
ALTER TABLE "App" ADD CONSTRAINT "App_name_check" CHECK ("name" ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$');
ALTER TABLE "App" ADD CONSTRAINT "App_epoch_check" CHECK ("epoch" >= 0);
ALTER TABLE "Formation" ADD CONSTRAINT "Formation_count_check" CHECK ("count" BETWEEN 0 AND 1000);
ALTER TABLE "ConfigVar" ADD CONSTRAINT "ConfigVar_name_check" CHECK ("name" ~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$');
ALTER TABLE "Release" ADD CONSTRAINT "Release_version_check" CHECK ("version" >= 1);
ALTER TABLE "Release" ADD CONSTRAINT "Release_digest_check" CHECK ("imageDigest" ~ '^sha256:[0-9a-f]{64}$');
ALTER TABLE "Release" ADD CONSTRAINT "Release_size_check" CHECK ("imageSize" >= 0);
ALTER TABLE "Deployment" ADD CONSTRAINT "Deployment_finished_check" CHECK (("status" = 'running') = ("finishedAt" IS NULL));
ALTER TABLE "Deployment" ADD CONSTRAINT "Deployment_failure_check" CHECK (("status" = 'failed') = ("failure" IS NOT NULL));
ALTER TABLE "Instance" ADD CONSTRAINT "Instance_id_check" CHECK ("id" ~ '^i[a-z0-9]{12}$');
ALTER TABLE "Instance" ADD CONSTRAINT "Instance_resources_check" CHECK ("cpuMillis" >= 0 AND "memoryMiB" >= 0 AND "diskMiB" >= 0);
ALTER TABLE "Instance" ADD CONSTRAINT "Instance_counters_check" CHECK ("generation" >= 1 AND "restarts" >= 0 AND "reportSeq" >= 0);
ALTER TABLE "Instance" ADD CONSTRAINT "Instance_gone_check" CHECK (("state" = 'gone') = ("goneAt" IS NOT NULL));
ALTER TABLE "Instance" ADD CONSTRAINT "Instance_port_check" CHECK ("port" BETWEEN 1 AND 65535);
ALTER TABLE "Node" ADD CONSTRAINT "Node_id_check" CHECK ("id" ~ '^n[a-z0-9]{12}$');
ALTER TABLE "Node" ADD CONSTRAINT "Node_name_check" CHECK ("name" ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$');
ALTER TABLE "Node" ADD CONSTRAINT "Node_capacity_check" CHECK ("cpuMillis" >= 0 AND "memoryMiB" >= 0 AND "diskMiB" >= 0 AND "maxInstances" >= 0);
ALTER TABLE "Route" ADD CONSTRAINT "Route_revision_check" CHECK ("revision" >= 1);
ALTER TABLE "QuotaLimit" ADD CONSTRAINT "QuotaLimit_limit_check" CHECK ("limit" >= 0);
ALTER TABLE "QuotaEntry" ADD CONSTRAINT "QuotaEntry_amount_check" CHECK ("amount" >= 0);
