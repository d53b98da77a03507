-- AlterTable
ALTER TABLE "Traffic" ADD COLUMN     "answerTimes" INTEGER[] DEFAULT ARRAY[]::INTEGER[];

-- Counts of two histograms added up, bucket by bucket. The shorter one has zeros at its end.
CREATE FUNCTION "add_counts"(a INTEGER[], b INTEGER[]) RETURNS INTEGER[]
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$
    SELECT coalesce(array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY i), '{}')
    FROM unnest(a, b) WITH ORDINALITY AS bucket (x, y, i)
  $$;
CREATE AGGREGATE "sum_counts"(INTEGER[]) (
  SFUNC = "add_counts", STYPE = INTEGER[], INITCOND = '{}', PARALLEL = SAFE
);
