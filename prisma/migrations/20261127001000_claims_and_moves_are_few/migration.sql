-- Looked for with every plan and every change of sizes, and there are few or none.
CREATE INDEX "Instance_claims" ON "Instance"("claimNodeId") WHERE "claimNodeId" IS NOT NULL;
CREATE INDEX "Instance_moves" ON "Instance"("moveAt") WHERE "moveTo" IS NOT NULL;
