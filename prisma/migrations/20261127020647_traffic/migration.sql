-- CreateTable
CREATE TABLE "Traffic" (
    "appId" UUID NOT NULL,
    "tenantId" UUID NOT NULL,
    "minute" TIMESTAMPTZ(0) NOT NULL,
    "status2xx" INTEGER NOT NULL,
    "status3xx" INTEGER NOT NULL,
    "status4xx" INTEGER NOT NULL,
    "status5xx" INTEGER NOT NULL,
    "failed" INTEGER NOT NULL,
    "bytesIn" BIGINT NOT NULL,
    "bytesOut" BIGINT NOT NULL,
    "waitedMs" BIGINT NOT NULL,

    CONSTRAINT "Traffic_pkey" PRIMARY KEY ("appId","minute")
);

-- CreateIndex
CREATE INDEX "Traffic_minute_idx" ON "Traffic"("minute");

-- AddForeignKey
ALTER TABLE "Traffic" ADD CONSTRAINT "Traffic_appId_fkey" FOREIGN KEY ("appId") REFERENCES "App"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "Traffic" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Traffic" FORCE ROW LEVEL SECURITY;
CREATE POLICY "tenant" ON "Traffic" USING (
  "tenantId"::text = current_setting('bulkhead.tenant', true)
  OR current_setting('bulkhead.scope', true) = 'platform'
);
