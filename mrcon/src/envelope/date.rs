//! Dates as ISO-8601 text.

/// The last millisecond of the year 9999, the last that ISO-8601 can write without an agreement.
const LAST_MILLISECOND: i64 = 253_402_300_799_999;

/// The year is one of `1970..=9999`, the years that Extended JSON writes as ISO-8601 text.
pub(super) fn is_iso8601_date(millis: i64) -> bool {
    (0..=LAST_MILLISECOND).contains(&millis)
}

/// Appends `2024-02-29T12:30:00.123Z`, for a time in milliseconds since 1970-01-01 UTC that
/// [`is_iso8601_date`]. The fraction has three digits, and is left out when it is zero.
pub(super) fn write_iso8601(out: &mut Vec<u8>, millis: i64) {
    debug_assert!(is_iso8601_date(millis));
    let millis = millis.unsigned_abs();
    let (year, month, day) = civil_from_days((millis / 86_400_000) as u32);
    let of_day = (millis % 86_400_000) as u32;

    let mut text = *b"0000-00-00T00:00:00.000Z";
    put_two(&mut text, 0, year / 100);
    put_two(&mut text, 2, year % 100);
    put_two(&mut text, 5, month);
    put_two(&mut text, 8, day);
    put_two(&mut text, 11, of_day / 3_600_000);
    put_two(&mut text, 14, of_day / 60_000 % 60);
    put_two(&mut text, 17, of_day / 1000 % 60);
    let fraction = of_day % 1000;
    if fraction == 0 {
        out.extend_from_slice(&text[..19]);
        out.push(b'Z');
    } else {
        text[20] = b'0' + (fraction / 100) as u8;
        put_two(&mut text, 21, fraction % 100);
        out.extend_from_slice(&text);
    }
}

/// Appends any date as ISO-8601 text: as [`write_iso8601`] does in the years 0 to 9999, and else with a sign
/// and six digits or more for the year, as ECMAScript writes such years: `-000044-03-15T12:00:00Z`.
pub(super) fn write_any_date(out: &mut Vec<u8>, millis: i64) {
    if is_iso8601_date(millis) {
        return write_iso8601(out, millis);
    }
    const DAY: i64 = 86_400_000;
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // 400 years are a whole number of days, after which the calendar repeats: written as of the years 1970 to
    // 2369, with another year before it.
    let days = millis.div_euclid(DAY);
    let within = days.rem_euclid(DAYS_OF_400_YEARS);
    let (year, _, _) = civil_from_days(within as u32);
    let year = days.div_euclid(DAYS_OF_400_YEARS) * 400 + i64::from(year);
    let text = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    out.extend_from_slice(text.as_bytes());
    let start = out.len();
    write_iso8601(out, within * DAY + millis.rem_euclid(DAY));
    out.drain(start..start + "0000".len());
}

/// Year, month and day of the `days`th day after 1970-01-01, in the Gregorian calendar.
///
/// Counts in years that begin on 1 March, so that the leap day is the last of its year, and in
/// eras of 400 years, which all have the same number of days.
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    const DAYS_FROM_0000_03_01_TO_1970: u32 = 719_468;
    const DAYS_OF_ERA: u32 = 146_097;
    const DAYS_OF_CENTURY: u32 = 36_524;
    const DAYS_OF_FOUR_YEARS: u32 = 1460;

    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let era = days / DAYS_OF_ERA;
    let day = days % DAYS_OF_ERA;
    let leap_days = day / DAYS_OF_FOUR_YEARS - day / DAYS_OF_CENTURY + day / (DAYS_OF_ERA - 1);
    let year_of_era = (day - leap_days) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days, again and again.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = match month_from_march {
        0..=9 => (month_from_march + 3, 0),
        _ => (month_from_march - 9, 1),
    };
    (era * 400 + year_of_era + next_year, month, day_of_month)
}

fn put_two(text: &mut [u8; 24], at: usize, number: u32) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days_of_month(year: u32, month: u32) -> u32 {
        let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn a_day_that_is_missing_or_doubled() {
        let mut days = 0;
        for year in 1970..=9999 {
            for month in 1..=12 {
                for day in 1..=days_of_month(year, month) {
                    assert_eq!(civil_from_days(days), (year, month, day));
                    days += 1;
                }
            }
        }
        assert_eq!(i64::from(days) * 86_400_000 - 1, LAST_MILLISECOND);
    }

    #[test]
    fn date_of_another_era_is_another() {
        let text = |millis| {
            let mut out = Vec::new();
            write_any_date(&mut out, millis);
            String::from_utf8(out).unwrap()
        };
        let day = 86_400_000;
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(text(-day), "1969-12-31T00:00:00Z");
        assert_eq!(text(-62_135_596_800_000), "0001-01-01T00:00:00Z");
        // The leap day of the year 0, and the first day before that year.
        assert_eq!(
            text(-62_135_596_800_000 - 307 * day),
            "0000-02-29T00:00:00Z"
        );
        assert_eq!(
            text(-62_135_596_800_000 - 367 * day),
            "-000001-12-31T00:00:00Z"
        );
        assert_eq!(text(LAST_MILLISECOND), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(LAST_MILLISECOND + 1), "+010000-01-01T00:00:00Z");
        // As ECMAScript has its first and last moment.
        assert_eq!(text(8_640_000_000_000_000), "+275760-09-13T00:00:00Z");
        assert_eq!(text(-8_640_000_000_000_000), "-271821-04-20T00:00:00Z");
        assert_eq!(text(i64::MAX), "+292278994-08-17T07:12:55.807Z");
        assert_eq!(text(i64::MIN), "-292275055-05-16T16:47:04.192Z");
    }

    #[test]
    fn a_time_of_day_that_is_another() {
        for second in 0..86_400 {
            let mut text = Vec::new();
            write_iso8601(&mut text, second * 1000);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let expected = format!("1970-01-01T{hour:02}:{minute:02}:{second:02}Z");
            assert_eq!(String::from_utf8_lossy(&text), expected);
        }
        for millis in 1..1000 {
            let mut text = Vec::new();
            write_iso8601(&mut text, millis);
            let expected = format!("1970-01-01T00:00:00.{millis:03}Z");
            assert_eq!(String::from_utf8_lossy(&text), expected);
        }
    }
}
