-- AlterTable
ALTER TABLE "Node" ADD COLUMN     "address" TEXT,
ADD COLUMN     "certificateEndsAt" TIMESTAMPTZ(3),
ADD COLUMN     "network" TEXT;

-- CreateTable
CREATE TABLE "JoinToken" (
    "id" UUID NOT NULL,
    "hash" BYTEA NOT NULL,
    "name" TEXT,
    "pool" TEXT NOT NULL,
    "labels" JSONB NOT NULL,
    "createdBy" TEXT NOT NULL,
    "createdAt" TIMESTAMPTZ(3) NOT NULL,
    "expiresAt" TIMESTAMPTZ(3) NOT NULL,
    "usedAt" TIMESTAMPTZ(3),
    "usedBy" TEXT,
    "nodeId" TEXT,

    CONSTRAINT "JoinToken_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "JoinToken_nodeId_key" ON "JoinToken"("nodeId");

-- CreateIndex
CREATE UNIQUE INDEX "JoinToken_hash_key" ON "JoinToken"("hash");

-- CreateIndex
CREATE UNIQUE INDEX "Node_network_key" ON "Node"("network");

ALTER TABLE "JoinToken" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "JoinToken" FORCE ROW LEVEL SECURITY;
CREATE POLICY "platform" ON "JoinToken" USING (current_setting('bulkhead.scope', true) = 'platform');
ALTER TABLE "JoinToken" ADD CONSTRAINT "JoinToken_used_check" CHECK (("usedAt" IS NULL) = ("usedBy" IS NULL));
