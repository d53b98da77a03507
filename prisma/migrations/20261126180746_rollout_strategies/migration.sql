-- AlterTable
ALTER TABLE "App" ADD COLUMN     "strategy" JSONB;

-- AlterTable
ALTER TABLE "Deployment" ADD COLUMN     "progress" INTEGER NOT NULL DEFAULT -2147483648,
ADD COLUMN     "progressAt" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
ADD COLUMN     "reachedAt" TIMESTAMPTZ(3),
ADD COLUMN     "step" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "strategy" JSONB NOT NULL DEFAULT '{"kind":"rolling","maxSurge":"25%","maxUnavailable":"0","progressSeconds":300}';
