-- AlterTable
ALTER TABLE "Instance" ADD COLUMN     "claimNodeId" TEXT,
ADD COLUMN     "claimedAt" TIMESTAMPTZ(3),
ADD COLUMN     "priority" INTEGER NOT NULL DEFAULT 1;

-- CreateTable
CREATE TABLE "Pool" (
    "name" TEXT NOT NULL,
    "cpuOvercommit" DOUBLE PRECISION NOT NULL DEFAULT 4,
    "open" BOOLEAN NOT NULL DEFAULT false,
    "createdAt" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Pool_pkey" PRIMARY KEY ("name")
);

-- CreateTable
CREATE TABLE "PoolGrant" (
    "pool" TEXT NOT NULL,
    "tenantId" UUID NOT NULL,

    CONSTRAINT "PoolGrant_pkey" PRIMARY KEY ("pool","tenantId")
);

-- AddForeignKey
ALTER TABLE "PoolGrant" ADD CONSTRAINT "PoolGrant_pool_fkey" FOREIGN KEY ("pool") REFERENCES "Pool"("name") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "PoolGrant" ADD CONSTRAINT "PoolGrant_tenantId_fkey" FOREIGN KEY ("tenantId") REFERENCES "Tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- How the fleet is divided is no tenant's business.
ALTER TABLE "Pool" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Pool" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "Pool" USING (current_setting('bulkhead.scope', true) = 'platform');
ALTER TABLE "PoolGrant" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "PoolGrant" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "PoolGrant" USING (current_setting('bulkhead.scope', true) = 'platform');

-- In the order in which what waits is looked for.
DROP INDEX "Instance_waiting";
CREATE INDEX "Instance_waiting" ON "Instance" ("priority" DESC, "createdAt", "id")
  WHERE "state" = 'pending' AND "desired" = 'running' AND "nodeId" IS NULL AND "goneAt" IS NULL;
