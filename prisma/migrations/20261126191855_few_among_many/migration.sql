-- What the controllers look for every second is a few rows among a hundred thousand. The conditions
-- name only columns that reports do not write: a report must not have to change these indexes.
CREATE INDEX "Instance_waiting" ON "Instance"("createdAt", "id")
  WHERE "nodeId" IS NULL AND "goneAt" IS NULL;
CREATE INDEX "Instance_in_motion" ON "Instance"("appId")
  WHERE "goneAt" IS NULL AND ("desired" = 'draining' OR "paused" <> "frozen" OR "oneOff");
